"""The only code that knows how many processes there are."""
