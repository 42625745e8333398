"""What a benchmark asks for: prompts with ids, and the hash that says which list a result rests on."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_mav.captions import fault_of
from lightning_mav.errors import DataError


@dataclass(frozen=True)
class Prompt:
    """One text to make a video of.

    Attributes:
        id: Names the prompt and its video; with the run's seed it decides the noise.
        text: What the model is given.
        group: What shares a real counterpart: an MSR-VTT video, a UCF-101 class.
    """

    id: str
    text: str
    group: str

    @property
    def key(self) -> str:
        """The id with the start of the text's sha256: what a video depends on beside its system and seed."""
        return f"{self.id}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def checked(prompts: Iterable[Prompt], source: object) -> list[Prompt]:
    """Return prompts as a list whose ids are distinct and whose texts are not empty.

    Raises:
        DataError: No prompt, an empty text, or an id that stands twice.
    """
    found = list(prompts)
    if not found:
        raise DataError(f"{source}: holds no caption of the split asked for")
    if empty := [prompt.id for prompt in found if not prompt.text.strip()]:
        raise DataError(f"{source}: {len(empty)} empty captions ({_first(empty)}); remove them")
    if broken := [prompt.id for prompt in found if fault_of(prompt.text)]:
        raise DataError(f"{source}: {len(broken)} captions hold what is no text ({_first(broken)}); correct them")
    if twice := [name for name, times in Counter(prompt.id for prompt in found).items() if times > 1]:
        raise DataError(f"{source}: {len(twice)} ids stand more than once ({_first(twice)}); keep one of each")
    return found


def _first(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def list_hash(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of ids and texts in their order, as hexadecimal digits."""
    lines = (f"{prompt.id}\t{prompt.text}\n" for prompt in prompts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
