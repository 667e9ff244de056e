"""Takes units and degrees away from the text of an answer.

Invariants:
* A unit is text at the end, behind a number or an expression; words that say more than what is
  counted or measured (``5 or more``, ``5 million``, ``5 squared``) are no units.
* Degrees in the argument of a trigonometric function become radians; elsewhere they are a unit.
"""

import re

# Digits are exponents: \mathrm{m/s^2}, \mathrm{s^{-1}}.
_UNIT = (
    r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mbox)"
    r"\s*\{((?:[^{}\d]|\^\s*(?:-?\d|\{\s*-?\d\s*\}))*)\}"
)
_POWER = r"(?:\s*\^\s*(?:\d|\{\s*-?\d\s*\}))?"
_UNITS = re.compile(
    rf"(?:(?:{_UNIT}{_POWER}\s*(?:/|\\cdot(?![A-Za-z]))?\s*)+"
    rf"|\\[dt]?frac\s*\{{\s*{_UNIT}{_POWER}\s*\}}\s*\{{\s*{_UNIT}{_POWER}\s*\}})$"
)
# Words after a number that say more than what is counted or measured.
_NO_UNIT = re.compile(
    r"\b(?:or|and|n?or|not|to|than|least|most|about|approximately|roughly|almost|nearly|plus|minus"
    r"|squared|cubed|factorial|dozen|halves|thirds|fifths|sixths|sevenths|eighths|ninths|tenths"
    r"|hundredths|thousandths|pi|sqrt|root|infinity|mod|if|unless|except)\b"
)
# Parts of a unit with exponents, which could otherwise be an expression: x^2 is no unit.
_EXPONENT = re.compile(r"\^\s*(?:-?\d|\{\s*-?\d\s*\})")
_BETWEEN_PARTS = re.compile(r"(?:\\[,;:! ]|\\cdot(?![A-Za-z])|[\s/.*~\u00b7])+")
_PART_OF_UNIT = re.compile(
    r"(?:[mcdkMGnpu\u00b5]|\\mu\s*)?(?:[mgslLNJWVAKCFT]|Hz|Pa|mol|bar)"
    r"|ft|feet|in|inch(?:es)?|yds?|mi|miles?|h|hr|min|sec|rad|lbs?|units?|per|sq|met(?:er|re)s?|"
)
_LETTERS_OF_UNITS = set("msghlLNJWVAKCFTtd")
_PLAIN_UNIT = re.compile(
    r"(?<=[\d\s}])([mcdk]m|ft|feet|in|inch(?:es)?|yd|yards?|miles?|met(?:er|re)s?|units?)"
    r"\s*\^\s*(?:[23]|\{[23]\})$"
)
# Of the letters of units, the Greek ones.
_GREEK_UNIT = re.compile(
    r"(?<=\d)(?:\\[,;: ]|\s|~)*[kM]?"
    r"\\(?:mu(?:\\[,;: ]|\s)*\\(?:text|mathrm)\s*\{([A-Za-z])\}|Omega)$"
)
_POWERS_OF_TEN = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_POWER_OF_TEN = re.compile(
    r"(?<=\d)\s*(?:\\[,;: ]\s*)?(?:(\\text\s*\{)\s*)?\b(" + "|".join(_POWERS_OF_TEN) + r")s?\b"
)

_LAST_SYMBOL = re.compile(
    r"(\\(?:[gl]eq?(?:slant)?|ne|neq|in|cdot|times|div|pm|mp|mid|to|cup|cap)"
    r"|(?<![A-Za-z\\])[A-Za-z])\s+([A-Za-z])\s*$"
)
_LAST_OPERAND = re.compile(r"([-+*/=<>^,])\s+([A-Za-z]\s*)$")

_DEGREE = (
    r"(?:\s*(?:\{\s*\})?\s*\^\s*(?:\{\s*(?:\\circ|\\degree|\u00b0|o|\\text\s*\{\s*o\s*\})\s*\}"
    r"|\\circ(?![A-Za-z])|\\degree(?![A-Za-z])|\u00b0|o(?![A-Za-z]))"
    r"|(?<=[\d\s})])\s*(?:\\degree(?![A-Za-z])|\\textdegree(?![A-Za-z])|\u00b0))"
)
_DEGREES = re.compile(
    _DEGREE + r"(?:\s*(?:\\(?:text|mathrm)\s*\{\s*[CF]\s*\}|[CF](?![A-Za-z])))?(?!\s*\d)"
)
_ANGLE = rf"(-?\d+(?:\.\d+)?){_DEGREE}"
_ANGLE_FUNCTION = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^(?:\d|\{\d\}))?)\s*"
    rf"(?:(?:\\left)?[({{]\s*{_ANGLE}\s*(?:\\right)?[)}}]|{_ANGLE})"
)


def is_unit(text: str) -> bool:
    """Whether ``text`` behind a number is a unit, or what was counted."""
    word = text.strip()
    if _EXPONENT.search(word):
        parts = _BETWEEN_PARTS.split(_EXPONENT.sub(" ", word))
        return all(map(_PART_OF_UNIT.fullmatch, parts))
    return not _NO_UNIT.search(word) and (
        len(word) != 1 or not word.isascii() or word in _LETTERS_OF_UNITS
    )


def remove_units(text: str) -> str:
    """Return ``text`` without the unit at its end, and its words for powers of ten as such."""

    def multiply(match: re.Match[str]) -> str:
        power = f"\\cdot10^{{{_POWERS_OF_TEN[match[2]]}}}"
        return power + "\\text{" if match[1] else power

    text = _POWER_OF_TEN.sub(multiply, text)
    text = re.sub(r"\\(?:pounds|euro)(?![A-Za-z])|(?<=\d)\s*\\?[\u00a2]$", "", text)
    text = _GREEK_UNIT.sub(r"\\text{\1}", text.rstrip())
    text = re.sub(r"\\text\s*\{\s*\}", " ", text)
    text = _PLAIN_UNIT.sub(r"\\text{\1}", text.rstrip())
    match = _UNITS.search(text)
    if match and all(map(is_unit, re.findall(_UNIT, match[0]))):
        text = text[: match.start()].strip() or text
    return text


def rewrite_degrees(text: str) -> str:
    """Return ``text`` without signs of degrees; ``\\sin 30^\\circ`` becomes a sine of radians."""

    def write_radians(match: re.Match[str]) -> str:
        return f"{match[1]}(\\frac{{{match[2] or match[3]}\\pi}}{{180}})"

    return _DEGREES.sub("", _ANGLE_FUNCTION.sub(write_radians, text))


def keep_last_symbol(text: str) -> str:
    """Return ``text`` such that its last letter is no unit where it must be a symbol.

    That is behind an operator, a relation or another symbol: ``n \\ge m``, ``a + m``, ``k m``.
    """
    return _LAST_OPERAND.sub(r"\1\2", _LAST_SYMBOL.sub(r"\1{\2}", text))
