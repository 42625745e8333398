"""The verbs that are plain functions, one thin file each."""
