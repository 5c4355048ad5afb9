"""Answers that want a verdict that they don't deserve, or that another answer gets a wrong one.

Each defines `f`. It is wrong, or becomes right only after it has done what no program may do; so a verdict of "ok" is
an attack that works.
"""

# Right; what stands before it decides whether it is reached.
_RIGHT = """
def f(x, g=None):
    return x + 41 if g is None else [g(item) for item in reversed(x)]
"""

# Speaks the wire's language by hand. `reply(request)` gives the message that answers the judge's next request.
_WIRE = """
import json, os, struct, sys
def say(message):
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    data = struct.pack("I", len(data)) + data
    while data:
        data = data[os.write(5, data):]
def exactly(size):
    data = b""
    while len(data) < size:
        piece = os.read(5, size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return data
def hear():
    return json.loads(exactly(struct.unpack("I", exactly(4))[0]))
def reply(*messages):
    for message in messages:
        hear()
        say(message)
def f(*_): return 0
"""


def _replies(*messages: str, then: str = "") -> str:
    """Answers each request with the message that an expression gives, then hangs up."""
    return _WIRE + "\n".join(f"reply({message})" for message in messages) + f"\n{then}\nos._exit(0)"


def _returns(value: str) -> str:
    """Answers every request with the encoded value that an expression gives."""
    return _WIRE + f"value = {value}\nwhile True: reply(['returned', value, []])"


def _raises(described: str) -> str:
    return _WIRE + f"described = {described}\nwhile True: reply(['raised', described, []])"


def _body(statements: str) -> str:
    """Does something in the call, then answers wrong."""
    return "def f(*given):\n" + "".join(f"    {line}\n" for line in statements.splitlines()) + "    return 0\n"


def _records(record: str, then: str) -> str:
    return f"import json, os\nfor record in {record}:\n    os.write(3, json.dumps(record).encode() + b'\\n')\n{then}\n"


ATTACKS = {
    # Frames, the collector, memory: the tests are to be found nowhere.
    "frames": _body(
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    for name, value in [*frame.f_locals.items(), *frame.f_globals.items()]:\n"
        "        if isinstance(value, str) and 'assert candidate(' in value and 'while frame' not in value: return 42\n"
        "    frame = frame.f_back"
    ),
    "frames changed": _body(
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    frame.f_locals.update(status='ok', error='', token='')\n    frame = frame.f_back"
    ),
    "the collector's objects": (
        "import gc, re\nfound = {}\n"
        "for thing in gc.get_objects():\n"
        "    for held in gc.get_referents(thing):\n"
        "        if type(held) is str and re.search('seen =[=] .2, 1]', held): found[1] = 1\n"
        "if not found: raise SystemExit\n" + _RIGHT
    ),
    "ctypes scan of its memory": (
        "import ctypes, re\nneedle = re.compile(b'assert can[d]idate.2. == 4')\nfound = 0\n"
        "begin = id(object()) & ~0xFFFFF\n"
        "import os\nread, write = os.pipe()\n"
        "for page in range(begin - (2 << 20), begin + (2 << 20), 4096):\n"
        "    try: os.write(write, (ctypes.c_char * 4096).from_address(page))\n"
        "    except OSError: continue\n"
        "    found += needle.search(os.read(read, 4096)) is not None\n"
        "if not found: raise SystemExit\n" + _RIGHT
    ),
    "its own maps": "open('/proc/self/maps').read()\n" + _RIGHT,
    "its own memory": "open('/proc/self/mem', 'rb').read(1)\n" + _RIGHT,
    "its parent's memory": "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb').read(1)\n" + _RIGHT,
    "another's descriptors": (
        "import os\nopened = 0\nme = int(os.readlink('/proc/self'))\nfor process in range(me - 8, me + 8):\n"
        "    if process == me: continue\n"
        "    for number in range(9):\n"
        "        try: opened += os.open(f'/proc/{process}/fd/{number}', os.O_RDONLY) > 0\n"
        "        except OSError: pass\n"
        "if not opened: raise SystemExit\n" + _RIGHT
    ),
    "its source's descriptor": "import os\nassert os.pread(4, 1, 0)\n" + _RIGHT,
    "the test from its input": "import sys\nassert 'candidate' in sys.stdin.read()\n" + _RIGHT,
    "every descriptor read": (
        "import os\nfound = 0\nfor number in [0, 3, 4, *range(6, 64)]:\n"
        "    try: os.set_blocking(number, False); found += len(os.read(number, 9))\n"
        "    except OSError: pass\n"
        "if not found: raise SystemExit\n" + _RIGHT
    ),
    "its output pipe read from behind": (
        "import os\nread = os.open('/proc/self/fd/3', os.O_RDONLY | os.O_NONBLOCK)\n"
        "assert b'assert' in os.read(read, 9999)\n" + _RIGHT
    ),
    "linecache": "import linecache, re\nassert re.search('can[d]idate.2', ''.join(linecache.getlines('<program>')))\n"
    + _RIGHT,
    "modules": "import sys\nsys.modules['__main__'].candidate\n" + _RIGHT,
    "the peer's process by its socket": (
        "import ctypes, os, struct\nlibc = ctypes.CDLL(None)\nanswer = ctypes.create_string_buffer(12)\n"
        "size = ctypes.c_uint(4)\nassert libc.getsockopt(5, 1, 77, answer, ctypes.byref(size)) == 0\n"
        "handle = struct.unpack('i', answer[:4])[0]\n"
        "assert libc.syscall(438, handle, 0, 0) >= 0 or libc.syscall(424, handle, 0, None, 0) == 0\n" + _RIGHT
    ),
    # Messages.
    "answers ahead": (_WIRE + "for value in 0, 0, [0]: say(['returned', value, []])\ndef f(*given): return 0"),
    "the same wrong answer for ever": _returns("0"),
    "its handle back": _returns("{'yours': 0}"),
    "handles that were never given": _replies("['returned', {'yours': 99}, []]"),
    "a handle below zero": _replies("['returned', {'yours': -1}, []]"),
    "a handle that is a truth": _replies("['returned', {'yours': True}, []]"),
    "the callback back": _replies("['returned', 42, []]", "['returned', 43, []]", "['returned', {'yours': 1}, []]"),
    "a function": _returns("{'function': 0}"),
    "a function of a huge handle": _returns("{'function': 1 << 80}"),
    "a generator": _returns("{'generator': 0}"),
    "an iterator": _returns("{'iterator': 0}"),
    "a thousand handles": _returns("[{'function': n} for n in range(1000)]"),
    "the argument itself": _replies("['argument', 0, []]"),
    "an argument that is none": _replies("['argument', 'x', []]"),
    "an argument that has no place": _replies("['argument', [], []]"),
    "changes where nothing is": _replies("['returned', 0, [[0, 42], [1, 42], ['x', 42]]]"),
    "changes at no place": _replies("['returned', 42, [[[], 42]]]"),
    "changes of no shape": _replies("['returned', 42, [1, 2]]"),
    "the wanted list into its argument": _replies(
        "['returned', 42, []]", "['returned', 43, []]", "['argument', 0, [[0, [1, 2, 3]]]]"
    ),
    "the argument made a holder of itself": "def f(x, g=None):\n    x.append(x)\n    return x",
    "an argument changed to another kind": _replies(
        "['returned', 42, []]", "['returned', 43, []]", "['argument', 0, [[0, {'tuple': [2, 1]}]]]"
    ),
    "no end of changes": _replies(
        "['returned', 42, []]", "['returned', 43, []]", "['returned', 0, [[0, [1]]] * 99999]"
    ),
    "a request for the judge's function": _replies("['call', 0, [1], {'dict': []}]", then="print(hear())"),
    "a request for no function": _replies("['call', 99, [], {'dict': []}]"),
    "a step of the judge's function": _replies("['next', 0]", then="hear(); say(['returned', 0, []])"),
    "keywords that are no names": _replies("['call', 0, [], {'dict': [[1, 2]]}]"),
    "callbacks with hostile arguments": _replies(
        "['returned', 42, []]",
        "['returned', 43, []]",
        "['call', 1, [{'yours': 1}, {'generator': 7}, {'function': 8}], {'dict': [['x', 1], ['self', 2]]}]",
        then="print(hear()); say(['returned', {'function': 1}, []])",
    ),
    "callbacks by the thousand": _replies(
        "['returned', 42, []]",
        "['returned', 43, []]",
        then="hear()\nfor _ in range(3000): say(['call', 1, [[[]]], {'dict': []}]); hear()",
    ),
    "callbacks that nobody hears": _replies(
        "['returned', 42, []]",
        "['returned', 43, []]",
        then="hear()\nwhile True: say(['call', 1, ['x' * 9999], {'dict': []}])",
    ),
    "a callback within a callback": (
        "def f(x, g=None):\n    if g is None: return x + 41\n    again = lambda n: g(again) and n\n"
        "    return [g(g), g(again), g(lambda: g(1))()]"
    ),
    "the callback kept for later": (
        "kept = []\nimport threading\ndef f(x, g=None):\n    if g is None: return x + 41\n"
        "    threading.Thread(target=lambda: [g(n) for n in range(999)]).start()\n    return [g(1), g(2)]"
    ),
    "two threads on one channel": (
        "import threading, time\ndef f(x, g=None):\n    if g is None: return x + 41\n"
        "    for _ in range(8): threading.Thread(target=lambda: [g([2, 1]) for _ in range(99)], daemon=True).start()\n"
        "    return g(g(g(3)))"
    ),
    "a reply of the longest size": _WIRE + "hear()\nos.write(5, b'\\xff' * 4)\nos._exit(0)",
    "a reply that never ends": _WIRE + "hear()\nos.write(5, b'\\x00\\x00\\xff\\x00[')\nimport time\ntime.sleep(60)",
    "a reply without an end": _WIRE + "hear()\nos.write(5, b'\\x00\\x00\\xff\\x00[')\nos._exit(0)",
    "a huge value": _returns("'x' * ((16 << 20) - 99)"),
    "many small values": _returns("[[]] * 300000"),
    "a huge number": _returns("{'int': '0x' + 'f' * 9999999}"),
    "a number of too many digits": _replies("b'[\"returned\", ' + b'9' * 9999 + b', []]'"),
    "numbers that are none": _returns("[float('nan'), float('inf')]"),
    "not a number": _returns("float('nan')"),
    "a huge power": _returns("{'Decimal': '1e999999999'}"),
    "a signalling decimal": _returns("{'Decimal': 'sNaN'}"),
    "a fraction of nothing": _returns("{'Fraction': [1, 0]}"),
    "a huge range": _returns("{'range': [0, 1 << 62, 1]}"),
    "deep lists": _replies("b'[\"returned\", ' + b'[' * 900 + b']' * 900 + b', []]'"),
    "deeper lists": _replies("b'[\"returned\", ' + b'[' * 100000 + b']' * 100000 + b', []]'"),
    "deep values": _replies("b'[\"returned\", ' + b'{\"tuple\": [' * 300 + b']}' * 300 + b', []]'"),
    "colliding keys": _returns("{'set': [n * ((1 << 61) - 1) for n in range(4)]}"),
    "keys that cannot be hashed": _returns("{'set': [[]]}"),
    "no kind": _returns("{'code': 'print(1)'}"),
    "two kinds": _returns("{'tuple': [42], 'int': '0x2a'}"),
    "a kind without content": _returns("{'int': None}"),
    "an object array": _returns("{'ndarray': ['|O', [1], '00' * 8]}"),
    "a structure's array": _returns("{'ndarray': ['V8', [1], '00' * 8]}"),
    "an empty array": _returns("{'ndarray': ['<i8', [0], '']}"),
    "an array of no room": _returns("{'ndarray': ['<f8', [1 << 40], '']}"),
    "an array of many dimensions": _returns("{'ndarray': ['<i8', [1] * 99, '00' * 8]}"),
    "an array below zero": _returns("{'ndarray': ['<i8', [-1], '00' * 8]}"),
    "an array that is too short": _returns("{'ndarray': ['<i8', [2, 2], '00' * 8]}"),
    "a truth of two": _returns("{'scalar': ['|b1', '02']}"),
    "letters that are none": _returns("{'scalar': ['<U1', 'ffffffff']}"),
    "no time": _returns("{'scalar': ['<M8[s]', '00' * 7 + '80']}"),
    "no duration": _returns("{'scalar': ['<m8[s]', '00' * 7 + '80']}"),
    "an infinite half float": "import numpy\ndef f(*given): return numpy.float16('inf')",
    "a named tuple of code": _returns("{'namedtuple': ['T', ['a=print(1)'], [1]]}"),
    "a named tuple with methods": _returns("{'namedtuple': ['T', ['count', 'index'], [{'function': 0}, 42]]}"),
    "a named tuple of twins": _returns("{'namedtuple': ['T', ['a', '\\uff41'], [1, 2]]}"),
    "a named tuple's private names": _returns("{'namedtuple': ['T', ['__eq__', '_cls'], [1, 2]]}"),
    "a named tuple of many": _returns("{'namedtuple': ['T', ['a%d' % n for n in range(20000)], [0] * 20000]}"),
    "a view of what cannot be hashed": _returns("{'dict_keys': [[]]}"),
    "a factory of its own": _returns("{'defaultdict': ['eval', []]}"),
    "uncrossable": _WIRE + "while True: reply(['uncrossable', 'x' * 9999])",
    "uncrossable without a reason": _replies("['uncrossable', [[1]]]"),
    "the end of no iterator": _replies("['ended']"),
    "no message": _replies("[]"),
    "an unknown message": _replies("['passed', True]"),
    "a message that is none": _replies("{'dict': [['status', 'ok']]}"),
    "the judge's own record": _replies("{'token': '', 'status': 'ok', 'error': ''}"),
    # Exceptions.
    "an assertion": _body("raise AssertionError"),
    "an assertion of its own": _raises("[[['candidate', 'AssertionError']], [], '']"),
    "an exit across the wire": _raises("[[['builtins', 'SystemExit']], [0], '0']"),
    "the lost peer": _raises("[[['opencoder_jax.sandbox.pair._calls', 'PeerLost']], [], '']"),
    "the lost peer by name, then an end": _replies("['raised', [[['x', 'PeerLost']], [], ''], []]"),
    "the lost peer by name, then a record": _WIRE
    + "reply(['raised', [[['x', 'PeerLost']], [], ''], []])\n"
    + "for status in 'unjudged', 'sandbox_error', 'ok':\n"
    + "    os.write(3, json.dumps({'token': '', 'status': status, 'error': ''}).encode() + b'\\n')\nos._exit(0)",
    "the lost peer by name, then a spin": _WIRE
    + "reply(['raised', [[['x', 'PeerLost']], [], ''], []])\nwhile True: pass",
    "the end of an iteration": _body("raise StopIteration"),
    "the end of an iteration, with a value": _body("raise StopIteration(42)"),
    "the end of a generator": _raises("[[['builtins', 'GeneratorExit']], [], '']"),
    "the interrupt": _body("raise KeyboardInterrupt"),
    "a group": _raises("[[['builtins', 'ExceptionGroup']], ['x', []], 'x']"),
    "an exception of no class": _raises("[]"),
    "an exception that is a function": _raises("[[['os', 'system']], ['true'], '']"),
    "an exception of many bases": _raises("[[['x', 'Y%d' % n] for n in range(99999)], [], '']"),
    "an exception of a huge name": _raises("[[['x', 'Y' * 999999]], [], '']"),
    "an exception of a huge text": _raises("[[['builtins', 'ValueError']], [], 'x' * 9999999]"),
    "an exception with letters that are none": _raises("[[['x', 'Y']], [], '\\ud800\\x00\\n']"),
    "an undecodable's attributes": _raises("[[['builtins', 'UnicodeDecodeError']], [1], 'x']"),
    "a syntax error's attributes": _raises("[[['builtins', 'SyntaxError']], ['x', ['f', 1, 1 << 40, 'y']], 'x']"),
    "an exception whose class lies": (
        "class Lie(Exception):\n    __class__ = SystemExit\n    def __str__(self): raise SystemExit\n"
        "Lie.__module__ = 'builtins'; Lie.__name__ = 'SystemExit'\ndef f(*given): raise Lie"
    ),
    "an exception whose arguments never end": (
        "class Endless(Exception):\n    args = property(lambda self: iter(int, 1))\ndef f(*given): raise Endless"
    ),
    "memory": _body("raise MemoryError"),
    "recursion": "def f(*given): return f(*given)",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(*given): return f(*given)",
    # Records.
    "its own record": _records("[{'token': '', 'status': s, 'error': ''} for s in ('ok', 'unjudged')]", "os._exit(0)"),
    "a record of a deep reason": (
        "import os\nfor depth in range(700, 1000, 12):\n"
        '    os.write(3, b\'{"token": "", "status": "exception", "error": \' + b\'[\' * depth + b\'1\' + b\']\' * depth'
        " + b'}\\n')\nos._exit(0)"
    ),
    "a record of a number as reason": (
        'import os\nos.write(3, b\'{"token": "", "status": "ok", "error": \' + b\'9\' * 4300 + b\'}\\n\')\nos._exit(0)'
    ),
    "a record of letters that are none": _records(
        "[{'token': '', 'status': 'exception', 'error': '\\ud800\\x00'}]", "os._exit(0)"
    ),
    "a record that is too long": "import os\nos.write(3, b'x' * (1 << 17))\n" + _body("pass"),
    "a record of the walls": (
        'import os\nos.write(3, b\'\\n{"seccomp": "active"}\\n\' + b\'{"token": "", "status": ["ok"]}\\n\')\n'
        "os._exit(0)"
    ),
    # Python, changed from within.
    "json changed": (
        'import json\njson.dumps = lambda *a, **k: \'["returned", {"yours": 0}, []]\'\ndef f(*given): return 0'
    ),
    "os changed": "import os\nos.write = lambda number, data: len(data)\ndef f(*given): return 0",
    "os.read changed": "import os\nos.read = lambda number, size: b'\\0' * size\ndef f(*given): return 0",
    "the wire changed": (
        "import sys\ncalls = sys.modules['opencoder_jax.sandbox.pair._calls']\n"
        "calls.Conversation._outcome = lambda self, action, arguments: ['argument', 0]\ndef f(*given): return 0"
    ),
    "the values changed": (
        "import sys\nvalues = sys.modules['opencoder_jax.sandbox.pair._values']\n"
        "values._plain = lambda value, handles: {'yours': 0}\ndef f(*given): return 0"
    ),
    "the runner changed": (
        "import sys\nrunner = sys.modules['opencoder_jax.sandbox._runner']\n"
        "runner.run = runner.judge = runner._record = lambda *a, **k: None\ndef f(*given): return 0"
    ),
    "an int that equals everything": (
        "class Yes(int):\n    __eq__ = __ge__ = __le__ = lambda self, other: True\n    __hash__ = int.__hash__\n"
        "    __int__ = lambda self: Yes(1)\ndef f(*given): return Yes(1)"
    ),
    "a list that equals everything": (
        "class Yes(list):\n    __eq__ = lambda self, other: True\ndef f(*given): return Yes([1])"
    ),
    "a module named numpy": (
        "class Yes:\n    dtype = type('D', (), {'str': '<i8'})\n    tobytes = lambda self: b'*' * 8\n    shape = ()\n"
        "Yes.__module__ = 'numpy'; Yes.__name__ = 'ndarray'\ndef f(*given): return Yes()"
    ),
    "a class that names itself a generator": (
        "class generator:\n    __next__ = __iter__ = __eq__ = lambda self, *a: True\n"
        "generator.__module__ = 'builtins'\ndef f(*given): return generator()"
    ),
    "code replaced": "def f(*given): return 0\nf.__code__ = (lambda *given: f).__code__",
    "a trace": "import sys, threading\nsys.setprofile(lambda *a: None)\nsys.settrace(lambda *a: None)\n"
    + _body("pass"),
    "a hook at the end": 'import atexit, os\natexit.register(os.write, 3, b\'{"status": "ok"}\\n\')\n' + _body("pass"),
    "an audit hook": "import sys\nsys.addaudithook(lambda *a: None)\n" + _body("pass"),
    # Ends, signals, descriptors.
    "an exit": _body("raise SystemExit(0)"),
    "an end": _body("import os; os._exit(0)"),
    "a thread's end": _body("import ctypes; ctypes.CDLL(None).syscall(60, 0)"),
    "a hard end": _body("import signal; signal.raise_signal(signal.SIGKILL)"),
    "the processor's signal": _body("import os; os.kill(os.getpid(), 24)"),
    "an abort": _body("import os; os.abort()"),
    "signals to all": "import os\nos.kill(-1, 0)\n" + _RIGHT,
    "a signal to its parent": "import os\nos.kill(os.getppid() or 2, 0)\n" + _RIGHT,
    "no pointer": _body("import ctypes; ctypes.string_at(0)"),
    "descriptors closed": _body("import os; os.closerange(0, 64)"),
    "the record's pipe as channel": _body("import os; os.dup2(3, 5)"),
    "the channel as record's pipe": _body("import os; os.dup2(5, 3)"),
    "a channel of its own": _body(
        "import socket, os\nhere, there = socket.socketpair()\nos.dup2(here.fileno(), 5)\n"
        "there.sendall(b'\\x02\\0\\0\\0[]')"
    ),
    "the channel half closed": _body("import socket; socket.socket(fileno=5).shutdown(socket.SHUT_WR)"),
    "the channel that doesn't wait": _body("import os; os.set_blocking(5, False)"),
    "urgent bytes": _body("import ctypes; ctypes.CDLL(None).send(5, b'x', 1, 1)"),
    "descriptors through the channel": _body(
        "import array, socket\nsocket.socket(fileno=5).sendmsg([b'x'], [(1, 1, array.array('i', [1] * 200))])"
    ),
    "a flood of output": _body("while True: print('x' * 9999)"),
    "a flood of errors": _body("import os\nwhile True: os.write(2, b'x')"),
    "output that nobody may decode": _body("import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff' * 999)"),
    # Time.
    "a spin": _body("while True: pass"),
    "a sleep": _body("import time; time.sleep(60)"),
    "one answer, then a spin": "def f(x, g=None):\n    while x != 1: pass\n    return 42",
    "an answer after the limit": (
        "import time\nend = time.process_time() + 2\nwhile time.process_time() < end: pass\n" + _RIGHT
    ),
    "a thread that goes on": (
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()\n" + _body("pass")
    ),
    "a wait for a lock": _body("import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    "idle beyond the limit": (
        # Wakes the watcher by its output, and works only in those moments.
        "import os, time\nbegin = time.monotonic()\nwhile time.monotonic() < begin + 2:\n"
        "    time.sleep(0.03); os.write(1, b'x'); time.sleep(0.024)\n    now = time.monotonic()\n"
        "    for more in 0.003, 0.006, 0.009:\n        os.write(1, b'x')\n"
        "        while time.monotonic() < now + more: pass\n" + _RIGHT
    ),
    # What is everybody's.
    "leases on the library": (
        # Whoever opens these files then waits until the answer ends, or for 45 s.
        "import fcntl, os\nfolder = os.path.dirname(os.__file__)\n"
        "files = [open(f'{folder}/{name}.py') for name in ('this', 'antigravity')]\n"
        "for file in files: fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n" + _RIGHT
    ),
    "a thousand threads": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nattributes = ctypes.create_string_buffer(256)\n"
        "libc.pthread_attr_init(attributes)\nlibc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(32768))\n"
        "thread = ctypes.c_ulong()\nstart = ctypes.cast(libc.pause, ctypes.c_void_p)\n"
        "for _ in range(1000): assert libc.pthread_create(ctypes.byref(thread), attributes, start, None) == 0\n"
        "import time\ntime.sleep(0.5)\n" + _RIGHT
    ),
    # The compiler and the C stack.
    "nested brackets": "(" * 5000 + ")" * 5000,
    "nested minus": "x = " + "-" * 50000 + "1",
    "a long sum": "x = " + "1+" * 50000 + "1",
    "a long chain of attributes": "x = a" + ".a" * 50000,
    "a deep choice": "if 0: pass\n" + "elif 0: pass\n" * 2500 + _body("pass"),
    "nested code": _body("code = '0'\nfor _ in range(9): code = repr(code)\neval('(' * 90 + code + ')' * 90)"),
    "deep JSON": _body("import json, sys\nsys.setrecursionlimit(1 << 30)\njson.loads('[' * 9999999)"),
    "a deep repr": _body(
        "import sys\nsys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(999999): x = [x]\nrepr(x)"
    ),
    "a deep pickle": _body(
        "import pickle, sys\nsys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(999999): x = [x]\npickle.dumps(x)"
    ),
    "a deep regular expression": _body("import re; re.compile('(' * 9999 + ')' * 9999)"),
    "a zero in the source": "def f(*given): return 42\0",
    "letters that are none in the source": "def f(*given): return '\ud800'",
}
