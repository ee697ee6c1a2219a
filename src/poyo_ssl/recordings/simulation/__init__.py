"""An invented brain observatory."""
