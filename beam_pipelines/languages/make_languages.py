"""Makes languages.json, the table by which a file's language is known, from GitHub linguist's data.

    python -c 'import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)' \\
        < linguist/lib/linguist/languages.yml \\
        | python -m opencoder_jax.beam_pipelines.languages.make_languages "9.6.0, commit b45dbe9"

The argument is linguist's version (lib/linguist/VERSION) and commit, the same as those of heuristics.json; its licence,
MIT, is languages.LICENSE. Linguist lists several languages for over 170 extensions: language_choices.json names one for
each, with its reason, and nothing is left to the order of a listing.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# Linguist's type -> the kind of document, before the exceptions that language_choices.json lists.
KINDS = {"programming": "code", "markup": "code", "data": "data", "prose": "text"}


def make_table(linguist: dict[str, dict[str, Any]], choices: dict[str, Any], version: str) -> dict[str, Any]:
    """The table that languages.py reads.

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
    tables: dict[str, Any] = {
        "version": f"github-linguist {version}",
        "upper_case_extensions": choices["upper_case_extensions"]["choices"],
        "kinds": kinds,
        "candidates": {},
    }
    for table, picks in chosen.items():
        candidates: dict[str, list[str]] = {}
        for name, language in sorted(linguist.items()):
            for key in language.get(table, []):
                candidates.setdefault(key, []).append(name)
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


def main(version: str) -> None:
    """Writes the table from linguist's languages, as JSON, on standard input."""
    choices = json.loads((HERE / "language_choices.json").read_text(encoding="utf-8"))
    text = json.dumps(make_table(json.load(sys.stdin), choices, version), indent=0, sort_keys=True, ensure_ascii=False)
    (HERE / "languages.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
