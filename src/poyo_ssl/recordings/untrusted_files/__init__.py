"""What makes hostile files harmless: nothing in them is executed, followed or believed."""
