"""Texts that must stay texts wherever they are shown."""

HOSTILE_TEXTS = {
    "markup": "<b>bold</b><img src=x onerror=\"window.hacked='img'\"><svg onload=window.hacked=1>",
    "script": "</script><script>window.hacked = 'script'</script><!-- <script>",
    "template": "{{ 7 * 7 }} {% raw %} ${window.hacked='template'} @{step} @step $name",
    "terminal": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \x08\x7f",
    "separators": "one\u2028two\u2029three\u0085four\vfive\r\nsix",
    "nulls": "before\x00after\x00",
    "direction": "\u202eevil\u202c \u2066hidden\u2069",
    "surrogate": "half \ud800 pair",
    "entities": "&lt;b&gt; &amp; &#x3c; javascript:alert(1)",
    "long line": "x" * 30_000,
}
