"""What a set is on disk: its arrays, its files, its picture, and the images that a stored one unpacks to. Nothing here knows
where a set came from, and nothing touches private data."""
