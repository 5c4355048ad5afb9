"""Makes languages.json, the table by which a file's language is known, from GitHub linguist's data.

    npm pack linguist-languages@9.5.0 && tar -xzf linguist-languages-9.5.0.tgz
    git clone --depth=1 --branch=v9.6.0 https://github.com/github-linguist/linguist
    python -m beam_pipelines.sources.make_languages package linguist

The npm package linguist-languages (MIT; its notices stand in languages.LICENSE) is linguist's languages.yml, one small
JavaScript object a language. Linguist lists several languages for 170 extensions: language_choices.json names one for
each, with its reason, and nothing is left to the order of a listing.

heuristics.json is made of linguist's heuristics.yml (MIT too), its regular expressions translated from Ruby's to
Python's. Reading it needs PyYAML, which nothing else here does.
"""

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Linguist's type -> the kind of document, before the exceptions that language_choices.json lists.
KINDS = {"programming": "code", "markup": "code", "data": "data", "prose": "text"}

_FIELD = re.compile(
    r"^  (name|type|extensions|filenames|interpreters): (.*?),?$(?=\n  \w|\n\})", re.MULTILINE | re.DOTALL
)


def read_languages(package: Path) -> list[dict[str, Any]]:
    """Linguist's languages in the order of their names: name, type, and maybe extensions, filenames, interpreters."""
    languages = [
        {field: ast.literal_eval(value) for field, value in _FIELD.findall(file.read_text(encoding="utf-8"))}
        for file in (package / "data").glob("*.js")
    ]
    return sorted(languages, key=lambda language: language["name"])


def make_table(languages: list[dict[str, Any]], choices: dict[str, Any], version: str) -> dict[str, Any]:
    """The table that languages.py reads.

    Raises:
        ValueError: an ambiguous extension, file name or interpreter has no choice, or a choice is none of linguist's.
    """
    kinds = {language["name"]: KINDS[language["type"]] for language in languages}
    for kind in ("text", "data", "code"):
        kinds |= dict.fromkeys(choices["kinds"][kind], kind)
    kinds |= dict.fromkeys(choices["excluded"]["names"], "excluded")
    if strange := kinds.keys() - {language["name"] for language in languages}:
        raise ValueError(f"kinds, excluded: linguist knows no {', '.join(sorted(strange))}")

    chosen = {
        "extensions": {key: name for group in choices["extensions"] for key, name in group["choices"].items()},
        "filenames": choices["filenames"]["choices"],
        "interpreters": choices["interpreters"]["choices"],
    }
    tables: dict[str, Any] = {
        "version": f"linguist-languages {version}",
        "upper_case_extensions": choices["upper_case_extensions"]["choices"],
        "kinds": kinds,
        "candidates": {},
    }
    for table, picks in chosen.items():
        candidates: dict[str, list[str]] = {}
        for language in languages:
            for key in language.get(table, []):
                candidates.setdefault(key, []).append(language["name"])
        tables[table] = {key: _choose(table, key, names, picks) for key, names in sorted(candidates.items())}
        if table == "extensions":
            tables["candidates"] = {key: names for key, names in sorted(candidates.items()) if len(names) > 1}
    return tables


def _choose(table: str, key: str, names: list[str], picks: dict[str, str]) -> str:
    if len(names) == 1:
        return names[0]
    if picks.get(key) not in names:
        raise ValueError(f"{table}: {key!r} may be {', '.join(names)}; choose one of them in language_choices.json")
    return picks[key]


_POSIX = {"alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "space": r"\s", "upper": "A-Z", "lower": "a-z"}


def python_regex(ruby: str) -> str:
    """A Ruby regular expression as Python writes it, for re.MULTILINE: Ruby's ^ and $ stand at every line.

    Raises:
        ValueError: Python cannot compile it.
    """
    text = re.sub(r"\(\?<(?=[a-zA-Z_])", "(?P<", ruby)
    text = re.sub(r"\[:(\w+):\]", lambda match: _POSIX[match[1]], text)
    text = re.sub(r"\(\?([a-z]*)m([a-z]*)(?=[:)])", r"(?\1s\2", text)  # Ruby's m is Python's s
    # An atom at a time, so that an escaped backslash isn't taken for the start of another escape.
    text = re.sub(r"\\(.)", lambda match: {"h": "[0-9a-fA-F]", "z": r"\Z"}.get(match[1], match[0]), text)
    text = text.replace("(?-m)", "")  # Python's . matches no line break anyway
    text = re.sub(r"\(\?([isx]+)\)(.*)$", r"(?\1:\2)", text, flags=re.DOTALL)  # from here on: Python wants a group
    text = re.sub(r"\\g<(\w+)>", lambda match: _group(text, match[1]), text)  # a call of a group: its text again
    try:
        re.compile(text, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"{ruby!r}, translated {text!r}: {error}") from None
    return text


def _group(regex: str, name: str) -> str:
    """A named group of a regular expression, without its name."""
    start = regex.index(f"(?P<{name}>") + len(f"(?P<{name}>")
    depth, end = 1, start
    while depth:
        atom = re.compile(r"\\.|\[(?:\\.|[^]])+\]|.", re.DOTALL).match(regex, end)
        assert atom, f"group {name} isn't closed"
        depth += {"(": 1, ")": -1}.get(atom[0], 0)
        end = atom.end()
    return f"(?:{regex[start : end - 1]})"


def make_heuristics(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Extension -> rules in their order: the languages, and tests, [regular expression, whether it must match]."""
    named = {name: _union(pattern) for name, pattern in document["named_patterns"].items()}

    def tests(rule: dict[str, Any]) -> list[list[Any]]:
        found = [test for part in rule.get("and", []) for test in tests(part)]
        if "pattern" in rule:
            found.append([_union(rule["pattern"]), True])
        if "named_pattern" in rule:
            found.append([named[rule["named_pattern"]], True])
        if "negative_pattern" in rule:
            found.append([_union(rule["negative_pattern"]), False])
        return found

    return {
        extension.lower(): [
            {
                "languages": [rule["language"]] if isinstance(rule["language"], str) else rule["language"],
                "tests": tests(rule),
            }
            for rule in group["rules"]
        ]
        for group in document["disambiguations"]
        for extension in group["extensions"]
    }


def _union(pattern: str | list[str]) -> str:
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return "|".join(f"(?:{python_regex(one)})" if len(patterns) > 1 else python_regex(one) for one in patterns)


def main(package: Path, linguist: Path) -> None:
    """Writes the tables and their notices from an unpacked package and a checkout of linguist."""
    version = json.loads((package / "package.json").read_text())["version"]
    choices = json.loads((HERE / "language_choices.json").read_text())
    table = make_table(read_languages(package), choices, version)
    (HERE / "languages.json").write_text(json.dumps(table, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    yaml = importlib.import_module("yaml")
    document = yaml.safe_load((linguist / "lib/linguist/heuristics.yml").read_text(encoding="utf-8"))
    text = json.dumps(make_heuristics(document), indent=1, sort_keys=True, ensure_ascii=False)
    (HERE / "heuristics.json").write_text(text + "\n")
    notices = [(package / name).read_text().strip() for name in ("LICENSE", "ThirdPartyNoticeText.txt")]
    (HERE / "languages.LICENSE").write_text("\n\n".join(notices) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
