"""Rewrites the notations of answers into the one notation that latex2sympy reads.

Invariants:
* What is taken away changes how an answer looks, not what it says: fonts, colours, sizes, lines
  under it, spaces that nobody sees.
* The rewritten text says what the original shows: ``\\textbf{7}3`` is 73, not 7 times 3.
* Text becomes mathematics only if all of it is a number, perhaps with a unit: ``\\text{5 cm}``, but
  neither ``\\text{June 5}`` nor ``\\text{5 or 6}``.
* Digits are ASCII: other characters that look like digits are not read.
* Nothing that is shown is dropped: dots that stand for more than the digits of a decimal are an
  error, because 1, 2, 3, ... is not 1, 2, 3.
"""

import re
import unicodedata

from verl_pipeline.rewards.math_signs import write_both_signs
from verl_pipeline.rewards.math_units import is_unit, remove_units, rewrite_degrees

# Characters with one meaning in mathematics, and what the parser knows instead.
_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("\u2212\u2011\ufe63\uff0d", "-"),
        **dict.fromkeys("\u2044\u2215", "/"),
        **dict.fromkeys("\u22c5\u00b7\u2219", "\\cdot "),
        **dict.fromkeys("\u2217\u2731", "*"),
        **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2007\u2008\u205f\u3000", " "),
        **dict.fromkeys("\u2009\u200a\u202f", "\\,"),
        **dict.fromkeys("\u00ba\u02da", "\u00b0"),
        **dict.fromkeys("\u2205\u2300\u00d8", "\\emptyset "),
        **dict.fromkeys("\u20ac\u00a3\u00a5\u20b9", "\\$"),
        "\u00d7": "\\times ",
        "\u00f7": "\\div ",
        "\u221e": "\\infty ",
        "\u03c0": "\\pi ",
        "\u2103": "\u00b0",
        "\u2109": "\u00b0",
        "\u221b": "\\sqrt[3]\u221a",
        "\u221c": "\\sqrt[4]\u221a",
        "~": " ",
    }
)
# A dash is a minus where nothing is left of it: 5\u20136 is a range.
_DASH = re.compile(r"(?:^|(?<=[(\[{,;=^]))(\s*)\u2013")
_FRACTION_CHARACTER = re.compile(r"[\u00bc-\u00be\u2150-\u215e\u2189]")
_RAISED = re.compile(r"[\u00b2\u00b3\u00b9\u2070\u2071\u2074-\u207b\u207f\u02e3]+")
_LOWERED = re.compile(r"[\u2080-\u208b\u2090-\u209c]+")
_ROOT = re.compile(r"\u221a\s*(?:(?=\{)|(\d+(?:\.\d+)?|[A-Za-z]|\([^()]*\)|\\pi))")

_INFINITY = re.compile(r"\\text\s*\{\s*[Ii]nfinity\s*\}|(?<![\\A-Za-z])[Ii]nfinity(?![A-Za-z])")

_COMMAND_END = r"(?![A-Za-z])\s*"
# Braces in pairs, two deep, which is as deep as one \frac in another.
_CONTENT = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*"
_LAYOUT = re.compile(
    r"\\(?:fcolorbox\s*\{[^{}]*\}|(?:color|textcolor|colorbox)(?:\s*\[[^][]*\])?)\s*\{[^{}]*\}"
    r"|\\bbox\s*\[[^][]*\]|\\(?:[hv]space\*?|[hv]?phantom|tag)\s*\{[^{}]*\}"
    r"|\\(?:display|text|script|scriptscript)style" + _COMMAND_END + r"|\\(?:tiny|scriptsize"
    r"|footnotesize|small|normalsize|[lL]arge|LARGE|[hH]uge|bf|bfseries|boldmath|rm|it|sf|tt|em"
    r"|boxed|fbox|underline|uline|boldsymbol|bm|pmb|ensuremath|limits|nolimits|middle|[bB]igg?[lrm]?)"
    + _COMMAND_END
)
_OLD_FONT = re.compile(r"\{\s*\\(bf|rm|it|sf|tt)(?![A-Za-z])\s*(" + _CONTENT + r")\}")
_TEXT = re.compile(
    r"\\(text(?:bf|it|rm|sf|tt|sc|up|md|normal)?|math(?:rm|bf|it|sf|tt|normal)|[mh]box|emph)"
    r"\s*\{(" + _CONTENT + r")\}"
)
_NUMBER = r"[-+]?\s*(?:\\?\$)?\s*\d[\d,.]*(?:\s*/\s*\d+|\s+\d+\s*/\s*\d+)?"
_NUMBER_AND_UNIT = re.compile(
    rf"\s*({_NUMBER})(?:\\?\s|\\[,;:])*([A-Za-z\u00b5\u03a9][^{{}}\d^]*)(\^(?:\d|\{{-?\d\}}))?\s*"
)
_CHOICES = re.compile(r"\s*(?:\([A-J]\)|[A-J])(?:\s*,\s*(?:\([A-J]\)|[A-J]))+\s*")
_NAMED_NUMBER = re.compile(rf"\s*[A-Za-z]\s*=\s*{_NUMBER}\s*")
_LABEL = re.compile(r"^\\text(?:bf|it|rm)?\s*\{[^{}\d]*[:=]\s*\}")
_ORDINAL = re.compile(
    r"\^\s*(?:\{\s*)?\\(?:text|mathrm)\s*\{\s*(?:st|nd|rd|th)\s*\}(?:\s*\})?|\^\s*\{\s*th\s*\}"
)

_SPACES = re.compile(r"(\\[A-Za-z]+|[\^_}])\s+(?=\{)")
_GROUPED_DIGITS = re.compile(
    r"(?<![\^_}\]\\A-Za-z])(?<![\^_c]\d)(?<!c\d\d)\{\s*(\d[\d,.]*|[-+])\s*\}"
)
_ANGLE_BRACKET = re.compile(r"(?:\\(?:left|right|[bB]igg?[lr]?)\s*)?\\([lr])angle(?![A-Za-z])")
_FUNCTION_OF_SET = re.compile(r"\\(max|min|gcd)\s*(?:\\left\s*)?\\\{([^{}]*?)(?:\\right\s*)?\\\}")
_INFIX_FRACTION = re.compile(r"\{([^{}]*)\\(over|choose)(?![A-Za-z])([^{}]*)\}")
# What an answer gives the value of, where the parser does not read it as a name.
_NAMED_POINT = re.compile(
    r"(?:\\left\s*)?\(\s*([A-Za-z](?:_\d)?(?:\s*,\s*[A-Za-z](?:_\d)?)+)\s*(?:\\right\s*)?\)"
    r"\s*(?:=|\\in(?![A-Za-z]))\s*(?=(?:\\left\s*)?(?:\(|\\\{))"
)
_NAMED_QUANTITY = re.compile(
    r"(?:\|[A-Z]{2}\||(?:\\?Pr?|\\mathbb\{P\}|E)\s*(?:\\left\s*)?[([][^()[\]=<>]*[)\]]"
    r"|[A-Za-z]\^\{-1\}\s*\([a-z]\))\s*=(?!.*=)\s*"
)
_EMPTY_GROUP = re.compile(r"(?<=[\d)])\{\s*\}|^\{\s*\}(?=\d)")
_EMPTY_SET = re.compile(r"\\\{\s*\\\}|\\varnothing(?![A-Za-z])")
_WHOLE_GROUP = re.compile(r"\{(?!\s*\}$)(" + _CONTENT + r")\}")
_SPACING = re.compile(r"(?<!\\)\\[,;:! ]")
_THOUSANDS = re.compile(
    r"(?<![\d.,_^])([1-9]\d{0,2})(\{,\}|\\[,;:! ]|'|\s)(\d{3}(?:\2\d{3})*)(?!\d)(?!\s*/)"
)
_TIGHT_COMMA = re.compile(r"(?<=\d),\s*\\!\s*(?=\d{3}(?!\d))")
_THOUSANDS_WITH_COMMA = re.compile(r"(?<![\d.,_^])([1-9]\d{0,2})((?:,\d{3})+)(?![\d])(?!,\d)")
# 2e-3 is 2e less 3, unless a point says that 2 is no symbol's coefficient.
_POWER_NOTATION = re.compile(r"(?<=\d)(?:E\+?|e\+?(?=\d)|(?<=\.\d)e|(?<=\.\d\d)e)(-?\d+)")
_MIXED_NUMBER = re.compile(r"(?<=\d)\s+(\d+)\s*/\s*(\d+)")

_DOTS = r"(?:\s*(?:\\[lc]?dots[bcmio]?(?![A-Za-z])|\u2026|\.\.\.+))"
_REPEATING = re.compile(
    r"(?<![\d.])(\d*)\.(\d*)(?:\\(?:overline|bar|overbar)\s*(?:\{\s*(\d+)\s*\}|(\d))"
    r"|\\dot\s*(?:\{(\d)\}|(\d))(?:(\d*)\\dot\s*(?:\{(\d)\}|(\d)))?|\((\d+)\)"
    rf"|((?:\d\u0305)+)){_DOTS}?(?!\d)"
)
# The period is plain if one digit is there three times, or more digits twice from the start on.
_CONTINUED = re.compile(
    r"(?<![\d.])(\d*)\.(?:(\d{0,20}?)(?:(\d)\3\3+|(\d{2,20}?)\4\4+)|(\d{2,20}?)\5+)" + _DOTS
)

# Capitals that begin a word; short words are known by name, because Ab may be a product.
_CAPITALISED_WORD = re.compile(r"[A-Z][a-z]{3,}|(?i:yes|no|true|false|even|odd|none|dne)")
# Words beside each other, none of which is a symbol, a function or a unit.
_PHRASE = re.compile(
    r"(?!.*\b(?:sin|cos|tan|log|ln|exp|sqrt|pi|alpha|beta|gamma|theta|infinity|percent|degrees?)\b)"
    r"(?=.*[A-Za-z]{4})[A-Za-z]{2,}(?: +(?:[aA]|[A-Za-z]{2,}))+",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"(\s*(?:,|;|\band\b|\bor\b)\s*)")


def rewrite_notation(text: str) -> str:
    """Return the answer in the notation of latex2sympy, without its units.

    Raises:
        ValueError: dots stand for something that cannot be known.
    """
    text = _POWER_NOTATION.sub(r"\\cdot10^{\1}", _rewrite_characters(text.strip()))
    text = _SPACES.sub(r"\1", _rewrite_numbers_in_text(_remove_layout(text)))
    text = _rewrite_repeating_decimals(text).strip().removesuffix(".").rstrip()
    if re.search(_DOTS, text):
        raise ValueError("dots that stand for more than digits")
    text = remove_units(rewrite_degrees(_ORDINAL.sub("", _LABEL.sub("", text))))
    while (joined := _GROUPED_DIGITS.sub(r"\1", text)) != text:
        text = joined
    text = _SPACING.sub(" ", _join_thousands(_EMPTY_GROUP.sub("", text)))
    text = _MIXED_NUMBER.sub(r"\\frac{\1}{\2}", text)
    text = _EMPTY_SET.sub(r"\\emptyset ", text).strip()
    text = _INFIX_FRACTION.sub(_write_fraction, text)
    while match := _WHOLE_GROUP.fullmatch(text):
        text = match[1].strip()
    text = _remove_name(_ANGLE_BRACKET.sub(lambda match: "()"[match[1] == "r"], text))
    text = _FUNCTION_OF_SET.sub(r"\\\1(\2)", re.sub(r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}", text))
    text = re.sub(r"\\(?:nice|s)frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\\sqrt\s*(\([^()]*\))", r"\\sqrt{\1}", text).replace("**", "^")
    text = re.sub(r"\\binom\s*([A-Za-z\d])\s*([A-Za-z\d])", r"\\binom{\1}{\2}", text)
    return _rewrite_words(write_both_signs(text))


def _write_fraction(match: re.Match[str]) -> str:
    return f"\\{'frac' if match[2] == 'over' else 'binom'}{{{match[1]}}}{{{match[3]}}}"


def _remove_name(text: str) -> str:
    """Take away what the answer gives the value of: ``(x, y) =``, ``P(A) =``."""
    point = _NAMED_POINT.match(text)
    if point:
        names = point[1].replace(" ", "").split(",")
        # In another order, the numbers would not be those of (x, y).
        return text[point.end() :] if names == sorted(set(names)) else text
    return _NAMED_QUANTITY.sub("", text, count=1) if _NAMED_QUANTITY.match(text) else text


def _rewrite_characters(text: str) -> str:
    def spell(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFKC", match[0]).replace("\u2212", "-")

    def write_fraction(match: re.Match[str]) -> str:
        numerator, denominator = spell(match).split("\u2044")
        return f"\\frac{{{numerator}}}{{{denominator}}}"

    text = _DASH.sub(r"\1-", text)
    text = _FRACTION_CHARACTER.sub(write_fraction, text)
    text = _RAISED.sub(lambda match: f"^{{{spell(match)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{spell(match)}}}", text)
    text = _INFINITY.sub(r"\\infty ", text.translate(_CHARACTERS))
    text = _ROOT.sub(lambda match: f"\\sqrt{{{match[1]}}}" if match[1] else "\\sqrt", text)
    return re.sub(r"(\\sqrt\[[34]\])\\sqrt", r"\1", text)


def _remove_layout(text: str) -> str:
    return _LAYOUT.sub("", _OLD_FONT.sub(r"\\math\1{\2}", text))


def _rewrite_numbers_in_text(text: str) -> str:
    def rewrite(match: re.Match[str]) -> str:
        content = _read_text(match[1], match[2])
        if content is None:
            return match[0]
        # Here a command or an exponent takes one character if there are no braces.
        is_argument = re.search(r"(?:\\[A-Za-z]+|[\^_}])\s*$", text[: match.start()])
        return f"{{{content}}}" if is_argument else content

    while (rewritten := _TEXT.sub(rewrite, text)) != text:
        text = rewritten
    return text


def _read_text(command: str, content: str) -> str | None:
    """Return the content of a command for text or fonts as mathematics, or None if it is text."""
    is_font = command.startswith("math") and command != "mathrm"
    letters = re.findall(r"[^\W\d_]", re.sub(r"\\[A-Za-z]+", "", content))
    if not letters or _NAMED_NUMBER.fullmatch(content):
        return content if content.strip() else None
    if is_font and (len(content) == 1 and content.islower() or re.search(r"[\d+*/=^-]", content)):
        return content
    if _CHOICES.fullmatch(content):
        return re.sub(r"[()]", "", content)
    match = _NUMBER_AND_UNIT.fullmatch(content)
    if match and is_unit(match[2]):
        return f"{match[1]}\\text{{ {match[2]}}}{match[3] or ''}"
    if match and re.fullmatch(r"pi|[a-z]", match[2]):
        return match[1] + match[2].replace("pi", "\\pi")
    return None


def _join_thousands(text: str) -> str:
    """Take separators away; within brackets a comma separates the elements of a list."""
    text = _TIGHT_COMMA.sub("", text)
    text = _THOUSANDS.sub(lambda match: match[1] + match[3].replace(match[2], ""), text)

    def join(match: re.Match[str]) -> str:
        before = text[: match.start()]
        is_in_list = len(re.findall(r"[(\[]|\\\{", before)) > len(re.findall(r"[)\]]|\\\}", before))
        return match[0] if is_in_list else match[0].replace(",", "")

    return _THOUSANDS_WITH_COMMA.sub(join, text)


def _rewrite_repeating_decimals(text: str) -> str:
    def write_value(whole: str, start: str, period: str) -> str:
        numerator = int(whole + start + period) - int(whole + start or "0")
        denominator = 10 ** len(start) * (10 ** len(period) - 1)
        return f"(\\frac{{{numerator}}}{{{denominator}}})"

    def rewrite(match: re.Match[str]) -> str:
        whole, start, *parts = match.groups(default="")
        return write_value(whole, start, re.sub(r"\D", "", "".join(parts)))

    text = _REPEATING.sub(rewrite, text)
    text = _CONTINUED.sub(
        lambda match: write_value(match[1], match[2] or "", match[3] or match[4] or match[5]), text
    )
    return re.sub(rf"(\.\d+){_DOTS}", r"\1", text)


def _rewrite_words(text: str) -> str:
    """Fold the case of words, which symbols keep: Monday is monday, but N is not n."""

    def fold_text(match: re.Match[str]) -> str:
        is_word = re.fullmatch(r"(?:[A-Za-z' ,.-]{3,}|(?i:no))", match[2].strip())
        return match[0].lower() if is_word and not match[1].startswith("math") else match[0]

    parts = _SEPARATOR.split(text)
    if len(parts) == 1 and _PHRASE.fullmatch(text):
        return f"\\text{{{text.lower()}}}"
    if all(part.isalpha() for part in parts[::2]):
        parts[::2] = [
            f"\\text{{{part}}}" if _CAPITALISED_WORD.fullmatch(part) else part
            for part in parts[::2]
        ]
    return _TEXT.sub(fold_text, "".join(parts))
