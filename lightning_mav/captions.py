"""What a text must be for the tokenizers of all CLIPs to read it."""


def fault_of(text: str) -> str | None:
    """Say what is wrong with a caption or prompt, in words that follow "it"; None if nothing is."""
    if "\0" in text:
        return "holds a NUL character"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "holds half of a surrogate pair, which is no character"
    return None
