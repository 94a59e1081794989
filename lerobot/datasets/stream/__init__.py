"""What `streaming.py` is made of: byte ranges of files, episodes in order, items out of episodes."""
