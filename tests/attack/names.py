"""Names that pages must show as text: each runs a script, asks a server or changes the page where it is not escaped."""

from __future__ import annotations

SCRIPT = "window.hacked=1"
TAGS = (
    f"<script>{SCRIPT}</script>", f"<img src=x onerror={SCRIPT}>", f"<svg onload={SCRIPT}>", f"<body onload={SCRIPT}>",
    f"<iframe srcdoc='<script>parent.{SCRIPT}</script>'>", f"<details open ontoggle={SCRIPT}>",
    f"<input autofocus onfocus={SCRIPT}>", f"<a href='javascript:{SCRIPT}' id=x>x</a>", "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>", "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<img src=//evil.example/x.png>", "<video src=//evil.example/x poster=//evil.example/y>", "<style>*{display:none}",
    f"<math><mtext><img src=x onerror={SCRIPT}>", f"<template><script>{SCRIPT}</script>", "<!--", "--><!DOCTYPE x>",
)  # fmt: skip
BEFORE = ("", "\"'>", "</script>", "</style>", "</title></textarea>", "]]>")  # ends what the name may stand in
STRINGS = (
    f"';{SCRIPT};'", f'";{SCRIPT};"', f"`;{SCRIPT};`", f"${{{SCRIPT}}}", "{{7*7}}", "{% raw %}", f"\\';{SCRIPT};//",
    f"javascript:{SCRIPT}", f"\" onmouseover={SCRIPT} x=\"", f"&lt;script&gt;{SCRIPT}", "&#x3c;b>",
    "%3Cscript%3E",
    "=HYPERLINK(\"//evil.example\")", "-->", "}*{display:none}", "url(//evil.example)",
)  # fmt: skip
UNPRINTABLE = ("\u202e\u2066gpj", f"\u2028{SCRIPT}", "\x1b[2J", "\ufeff\u200b")  # no names of classes, but of files


def hostile_names(count: int) -> list[str]:
    """Return different hostile names, at most 126, in an order that begins with one of each kind."""
    found = [*STRINGS, *(before + tag for before in BEFORE for tag in TAGS)]
    return list(dict.fromkeys(found))[:count]
