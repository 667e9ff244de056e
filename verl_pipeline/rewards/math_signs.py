"""Writes plus-minus within an expression as the two expressions that it stands for.

Invariant: an element with several such signs stays as it is, because it does not say whether they
belong together.
"""

import re

_SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])")


def write_both_signs(text: str) -> str:
    """Write an element with one sign plus-minus within a group as two elements.

    The parser reads this sign outside of groups only.
    """
    if text.startswith("\\{") and text.endswith("\\}") and text.count("\\{") == 1:
        return f"\\{{{write_both_signs(text[2:-2])}\\}}"
    elements = _split_list(text)
    for index, element in enumerate(elements):
        signs = list(_SIGNS.finditer(element))
        if len(signs) == 1 and _count_open_groups(element[: signs[0].start()]):
            elements[index] = ",".join(_SIGNS.sub(sign, element) for sign in "+-")
    return ",".join(elements)


def _split_list(text: str) -> list[str]:
    """Split at the commas outside of brackets and groups."""
    elements = [""]
    for part in text.split(","):
        if _count_open_groups(elements[-1]):
            elements[-1] += f",{part}"
        elif elements == [""]:
            elements = [part]
        else:
            elements.append(part)
    return elements


def _count_open_groups(text: str) -> int:
    return len(re.findall(r"[({[]", text)) - len(re.findall(r"[)}\]]", text))
