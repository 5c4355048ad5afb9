"""Makes languages.json and heuristics.json, by which a file's language is known, from GitHub linguist's data.

    cd linguist/lib/linguist && python -c 'import json, yaml; print(json.dumps(
        {name: yaml.safe_load(open(f"{name}.yml")) for name in ("languages", "heuristics")}))' > linguist.json
    python -m opencoder_jax.beam_pipelines.languages.make_tables "9.6.0, commit b45dbe9" < linguist.json

The argument is linguist's version (lib/linguist/VERSION) and commit; its licence, MIT, is languages.LICENSE. Linguist
lists several languages for over 170 extensions: language_choices.json names one for each, with its reason, and nothing
is left to the order of a listing. content_rules.json adds rules where linguist has none and asks a classifier. The
patterns of its rules about content are Ruby's. They're translated for RE2, which Arrow holds: time is linear in the
text, whatever the text. Four patterns look around or call themselves, which RE2 doesn't; REWRITTEN says about the same
without.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Linguist's type -> the kind of document, before the exceptions that language_choices.json lists.
KINDS = {"programming": "code", "markup": "code", "data": "data", "prose": "text"}

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


def make_languages(linguist: dict[str, dict[str, Any]], choices: dict[str, Any]) -> dict[str, Any]:
    """The tables of languages.json.

    Args:
        linguist: name -> what languages.yml says: type, and maybe extensions, filenames, interpreters.
        choices: language_choices.json.

    Raises:
        ValueError: an ambiguous extension, file name or interpreter has no choice, or a choice is none of linguist's.
    """
    kinds = {name: KINDS[language["type"]] for name, language in linguist.items()}
    for kind in ("text", "data", "code"):
        kinds |= dict.fromkeys(choices["kinds"][kind], kind)
    kinds |= dict.fromkeys(choices["excluded"]["names"], "excluded")
    if strange := kinds.keys() - linguist.keys():
        raise ValueError(f"kinds, excluded: linguist knows no {', '.join(sorted(strange))}")
    chosen = {
        "extensions": {key: name for group in choices["extensions"] for key, name in group["choices"].items()},
        "filenames": choices["filenames"]["choices"],
        "interpreters": choices["interpreters"]["choices"],
    }
    tables: dict[str, Any] = {"upper_case_extensions": choices["upper_case_extensions"]["choices"], "kinds": kinds}
    for table, picks in chosen.items():
        candidates: dict[str, list[str]] = {}
        for name, language in sorted(linguist.items()):
            for key in language.get(table, []):
                candidates.setdefault(key, []).append(name)
        ambiguous = {key: names for key, names in candidates.items() if len(names) > 1}
        for key, names in ambiguous.items():
            if picks.get(key) not in names:
                known = ", ".join(names)
                raise ValueError(f"{table}: {key!r} may be {known}; choose one of them in language_choices.json")
        tables[table] = {key: picks[key] if key in ambiguous else names[0] for key, names in candidates.items()}
        if table == "extensions":
            tables["candidates"] = ambiguous
    tables["aliases"] = {
        alias.lower(): name for name, language in linguist.items() for alias in language.get("aliases", [])
    }
    return tables


def make_rules(linguist: dict[str, Any], ours: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rules of heuristics.json: extension, or file name -> its rules in order.

    A rule has languages, patterns that all match, and patterns none of which matches.

    Args:
        linguist: what heuristics.yml says.
        ours: content_rules.json; before its `rules` go those of linguist's that ask something, after them the others.

    Raises:
        ValueError: a rule is of a form that isn't known here.
    """
    named = {name: _union(patterns) for name, patterns in linguist["named_patterns"].items()}
    theirs = {
        extension.lower(): [_rule(rule, extension, named) for rule in block["rules"]]
        for block in linguist["disambiguations"]
        for extension in block["extensions"]
    }
    first, then = (
        {key: [_rule(rule, "", named) for rule in rules] for key, rules in ours[part].items()}
        for part in ("first", "rules")
    )
    tables = {}
    for key in theirs.keys() | first.keys() | then.keys():
        asking = [rule for rule in theirs.get(key, []) if rule["match"] or rule["absent"]]
        others = [rule for rule in theirs.get(key, []) if rule not in asking]
        tables[key] = first.get(key, []) + asking + then.get(key, []) + others
    return tables


def _rule(rule: dict[str, Any], extension: str, named: dict[str, str]) -> dict[str, Any]:
    languages = rule["language"] if isinstance(rule["language"], list) else [rule["language"]]
    if rewritten := REWRITTEN.get((extension, languages[0])):
        return {"languages": languages, "match": ["(?m)" + rewritten], "absent": []}
    matching: list[str] = []
    absent: list[str] = []
    for part in rule.get("and", [rule]):
        if strange := part.keys() - {"language", "pattern", "named_pattern", "negative_pattern"}:
            raise ValueError(f"{extension}: a rule has {', '.join(sorted(strange))}, which this script doesn't know")
        matching += [_union(part["pattern"])] if "pattern" in part else []
        matching += [named[part["named_pattern"]]] if "named_pattern" in part else []
        absent += [_union(part["negative_pattern"])] if "negative_pattern" in part else []
    return {"languages": languages, "match": matching, "absent": absent}


def _union(patterns: str | list[str]) -> str:
    """One pattern in RE2's words. In Ruby ^ and $ always mean lines, and (?m) is what others call (?s)."""
    parts = [patterns] if isinstance(patterns, str) else patterns
    translated = [part.replace("(?-m)", "").replace("(?im)", "(?is)") for part in parts]
    return "(?m)" + (translated[0] if len(parts) == 1 else "|".join(f"(?:{part})" for part in translated))


def _write(name: str, version: str, tables: dict[str, Any]) -> None:
    table = {"version": f"github-linguist {version}"} | tables
    text = json.dumps(table, indent=0, sort_keys=True, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    linguist = json.load(sys.stdin)
    choices = json.loads((HERE / "language_choices.json").read_text(encoding="utf-8"))
    _write("languages.json", sys.argv[1], make_languages(linguist["languages"], choices))
    ours = json.loads((HERE / "content_rules.json").read_text(encoding="utf-8"))
    _write("heuristics.json", sys.argv[1], {"rules": make_rules(linguist["heuristics"], ours)})
