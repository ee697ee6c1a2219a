"""What single units did: responses, tuning, and their part in what decoders answer."""
