"""Makes languages.json, the table by which a file's language is known, from GitHub linguist's data.

    npm pack linguist-languages@9.5.0 && tar -xzf linguist-languages-9.5.0.tgz
    python -m beam_pipelines.sources.make_languages package

The npm package linguist-languages (MIT; its notices stand in languages.LICENSE) is linguist's languages.yml, one small
JavaScript object a language. Linguist lists several languages for 170 extensions: language_choices.json names one for
each, with its reason, and nothing is left to the order of a listing.
"""

import ast
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


def main(package: Path) -> None:
    """Writes the table and its notices from an unpacked package."""
    version = json.loads((package / "package.json").read_text())["version"]
    choices = json.loads((HERE / "language_choices.json").read_text())
    table = make_table(read_languages(package), choices, version)
    (HERE / "languages.json").write_text(json.dumps(table, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    notices = [(package / name).read_text().strip() for name in ("LICENSE", "ThirdPartyNoticeText.txt")]
    (HERE / "languages.LICENSE").write_text("\n\n".join(notices) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
