"""Makes heuristics.json, by which content tells the language of an ambiguous extension, from GitHub linguist's rules.

    python -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)' \\
        < linguist/lib/linguist/heuristics.yml \\
        | python -m opencoder_jax.beam_pipelines.languages.make_heuristics "9.6.0, commit b45dbe9"

The argument is linguist's version (lib/linguist/VERSION) and commit; its licence, MIT, is languages.LICENSE. Patterns
there are Ruby's. They're translated for RE2, which Arrow holds: time is linear in the text, whatever the text. Four
patterns look around or call themselves, which RE2 doesn't; REWRITTEN says about the same without.
"""

import json
import sys
from pathlib import Path
from typing import Any

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_BLOCKER = r"(?:[Aa]d[Bb]lock(?:[ \t][Pp]lus)?|u[Bb]lock(?:[ \t][Oo]rigin)?|[Aa]d[Gg]uard)(?:[ \t]\d+(?:\.\d+)*)?"

# (extension, language) -> its pattern in RE2's words.
REWRITTEN = {
    (".tpl", "Smarty"): r"(?:\A|[^{])\{(\*\s|\$|/)?\w*\b",
    (".txt", "Vim Help File"): (
        r"(?:(?:^|[ \t])(?:vim?|Vim)(?:[<=>]?[0-9]+)?|[ \t]ex):"
        r"[^\r\n]*?[ \t:](?:filetype|ft|syntax)[ \t]*=help(?:$|\s|:)"
    ),
    (".txt", "Hosts File"): (
        rf"^(?:{_OCTET}\.){{3}}{_OCTET}\b(?:/(?:3[0-2]|[12]?\d)\b)?(?:[ \t]+\w(?:[-.\w]*\w)?)*(?:$|\s)"
    ),
    (".txt", "Adblock Filter List"): rf"\A\[{_BLOCKER}(?:[ \t]?;[ \t]?{_BLOCKER})*\]",
}


def make_rules(linguist: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Extension -> its rules in order: language, patterns that all match, patterns none of which matches."""
    named = {name: _union(patterns) for name, patterns in linguist["named_patterns"].items()}
    rules: dict[str, list[dict[str, Any]]] = {}
    for block in linguist["disambiguations"]:
        for extension in block["extensions"]:
            rules[extension.lower()] = [_rule(rule, extension, named) for rule in block["rules"]]
    return rules


def _rule(rule: dict[str, Any], extension: str, named: dict[str, str]) -> dict[str, Any]:
    languages = rule["language"] if isinstance(rule["language"], list) else [rule["language"]]
    if rewritten := REWRITTEN.get((extension, languages[0])):
        return {"languages": languages, "match": ["(?m)" + rewritten], "absent": []}
    matching: list[str] = []
    absent: list[str] = []
    for part in rule.get("and", [rule]):
        if strange := part.keys() - {"language", "pattern", "named_pattern", "negative_pattern"}:
            raise ValueError(f"{extension}: a rule has {', '.join(sorted(strange))}, which this script doesn't know")
        if "pattern" in part:
            matching.append(_union(part["pattern"]))
        if "named_pattern" in part:
            matching.append(named[part["named_pattern"]])
        if "negative_pattern" in part:
            absent.append(_union(part["negative_pattern"]))
    return {"languages": languages, "match": matching, "absent": absent}


def _union(patterns: str | list[str]) -> str:
    """One pattern in RE2's words. In Ruby ^ and $ always mean lines, and (?m) is what others call (?s)."""
    parts = [patterns] if isinstance(patterns, str) else patterns
    translated = [part.replace("(?-m)", "").replace("(?im)", "(?is)") for part in parts]
    return "(?m)" + (translated[0] if len(parts) == 1 else "|".join(f"(?:{part})" for part in translated))


def main(version: str) -> None:
    """Writes heuristics.json from linguist's rules, as JSON, on standard input."""
    table = {"version": f"github-linguist {version}", "rules": make_rules(json.load(sys.stdin))}
    text = json.dumps(table, indent=0, sort_keys=True, ensure_ascii=False)
    Path(__file__).with_name("heuristics.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
