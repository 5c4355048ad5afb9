"""Shared words: ten in a row that say something, in whatever text; names that nothing else has."""

from hypothesis import given
from hypothesis import strategies as st

from opencoder_jax.beam_pipelines.decontamination.words import WORD, Leak, NameIndex, WordIndex, cut, name_parts
from opencoder_jax.benchmarks.problems import Fields, Problem, read_problem

FIELDS = Fields(("prompt", "text"), ("code",), ("tests",))
SENTENCE = "Check if in given list of numbers, are any two numbers closer to each other than given threshold."


def problems(*rows: dict[str, object], benchmark: str = "own") -> list[Problem]:
    return [read_problem(benchmark, number, row, FIELDS) for number, row in enumerate(rows)]


def index(given: list[Problem], shared: int = 1, telling: int = 4, boilerplate: int = 10) -> WordIndex:
    return WordIndex(given, 10, shared, 6, telling, boilerplate)


def found(words: WordIndex, *texts: str) -> list[tuple[int, str]]:
    """(text, what matches) of the first leak of each text."""
    leaks: dict[int, str] = {}
    for row, leak in words.leaks(*cut(texts)):
        spans = [match.span() for match in WORD.finditer(texts[row])][leak.start : leak.stop]
        leaks.setdefault(row, texts[row][spans[0][0] : spans[-1][1]])
    return sorted(leaks.items())


def test_ten_words_in_common_and_nine() -> None:
    words = index(problems({"text": SENTENCE}))
    ten, nine = "in given list of numbers, are any two numbers closer", "in given list of numbers, are any two numbers"
    texts = [f"x {ten} y", f"x {nine} y", f"x {nine}", f"{nine}\n\n// CLOSER to", SENTENCE.upper()]
    assert found(words, *texts) == [(0, ten), (3, f"{nine}\n\n// CLOSER to"), (4, SENTENCE[:-1].upper())]


def test_two_grams_are_eleven_words() -> None:
    words = index(problems({"text": SENTENCE}), shared=2)
    eleven = "in given list of numbers, are any two numbers closer to"
    assert found(words, eleven, eleven[:-3], f"{eleven[:-3]} x {eleven[:-3]}") == [(0, eleven)]


def test_a_short_text_counts_as_a_whole() -> None:
    words = index(problems({"text": "Find the volume of a cube."}, {"text": "Add two numbers."}), shared=2)
    texts = ["# Find the volume\n# of a cube\n", "find the volume of a sphere", "Add two numbers."]
    assert found(words, *texts) == [(0, "Find the volume\n# of a cube")]


def test_what_everybody_writes_says_nothing() -> None:
    tests = "assert f([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) == [1, 2]"
    code = "for i in range(len(x)):\n    for j in range(i, len(x)):\n        if not x: return None\n"
    numbers = "one, two, three, four, five, six, seven, eight, nine, ten, eleven"
    words = index(problems({"code": code, "tests": tests}, {"text": numbers}))
    assert found(words, code, "range = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]", numbers) == []
    assert [row for row, _ in found(index(problems({"code": code}), telling=0), code)] == [0]
    # The function under test among them makes them say something.
    called = "def smallest(x):\n    return min(x)"
    words = index(problems({"code": called, "tests": "assert smallest([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) == 0"}))
    assert [row for row, _ in found(words, "check(smallest([0, 1, 2, 3, 4, 5, 6, 7, 8]))", "f(0, 1, 2)")] == [0]


def test_boilerplate_of_a_benchmark_says_nothing() -> None:
    common = "The first line of the input contains one integer, the number of test cases."
    names = ("weight", "colour", "age")
    rows = [
        {"text": f"{common} Sort apples by {name}, as the greengrocer does with {name} of fruit."} for name in names
    ]
    own = "Sort apples by colour, as the greengrocer does with colour of fruit."
    assert found(index(problems(*rows), boilerplate=2), common, f"x {own}") == [(1, own[:-1])]
    assert [row for row, _ in found(index(problems(*rows), boilerplate=3), common)] == [0]
    # Translations of one problem are several benchmarks.
    many = [problem for name in "abc" for problem in problems({"text": common}, benchmark=name)]
    assert [row for row, _ in found(index(many, boilerplate=2), common)] == [0]


@given(st.lists(st.sampled_from(["a1", "Bb", "c_1", "größe", "(", "\n", " ", "a1 Bb", "x"]), max_size=40).map(" ".join))
def test_a_text_leaks_exactly_when_it_shares_a_gram(text: str) -> None:
    """The vectorised search and the exact one against sets of words."""
    secret = "a1 bb a1 bb größe c_1 a1 é bb bb größe a1"
    words = WordIndex(problems({"text": secret}), 4, 1, 3, 0, 10)

    def runs(given: str) -> set[tuple[str, ...]]:
        cut = given.lower().replace("(", " ").split()
        return {tuple(cut[place : place + 4]) for place in range(len(cut) - 3)}

    telling = {gram for gram in runs(secret) if len(set(gram)) >= 3}
    assert bool(found(words, text)) == bool(telling & runs(text))


def test_names_that_nothing_else_has() -> None:
    rows = [
        {"prompt": "def has_close_elements(xs):", "tests": "has_close_elements([])"},
        {"prompt": "def add(x, y):", "tests": "add(1, 2)"},
        {"prompt": "def intersection_of(x):", "tests": "intersection_of(1)"},
    ]
    names = NameIndex(problems(*rows), length=12, parts=3)
    texts = ["y = has_close_elements(x)", "hasCloseElements(x)", "has_close_elements_(x)", "add(intersection_of(x))"]
    assert list(names.leaks(*cut(texts))) == [(0, Leak("entry_point", 0, 1, 2)), (1, Leak("entry_point", 0, 0, 1))]
    everything = NameIndex(problems(*rows), length=1, parts=1)
    assert [leak.problem for _, leak in everything.leaks(*cut(texts[3:]))] == [1, 2]


def test_parts_of_names() -> None:
    assert name_parts("has_close_elements") == ["has", "close", "elements"]
    assert name_parts("hasCloseElements2") == ["has", "Close", "Elements"]
    assert name_parts("parseHTTPReply") == ["parse", "HTTP", "Reply"]


def test_no_problems() -> None:
    assert found(index([]), SENTENCE, "") == []
    assert list(NameIndex([], 1, 1).leaks(*cut(["x"]))) == []


def test_a_method_is_called_by_its_own_name() -> None:
    names = NameIndex(problems({"entry_point": "Solution().shortestDistanceAfter"}), length=16, parts=3)
    texts = ["the solution of all", "def shortestDistanceAfter(self):"]
    assert list(names.leaks(*cut(texts))) == [(1, Leak("entry_point", 0, 1, 2))]
