"""Programs in all languages that want out of the walls, each in the way of its language.

@SECRET@ is a file outside that holds a word, @PATH@ one that isn't there, @PORT@ a port of this machine where somebody
listens. A program that reads prints the word; one that writes makes the file; one that connects is heard; one that
starts leaves `sleep 31415` behind. All try to say "tried" at the end, whether they got something or not, so that one
which can't even try is found. Each is harmless where its wall fails: files are of the test's own directory, connections
of this machine, and what is left behind sleeps.
"""

READS, WRITES, CONNECTS, STARTS = "reads", "writes", "connects", "starts"

_C = r"""
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) { char text[200] = {0}; (void)text; BODY puts("tried"); return 0; }
"""
_SOCKET = (
    "struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(@PORT@)};"
    'inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);'
    "connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);"
)
_JAVA = r"""
import java.io.*;
import java.net.*;
import java.nio.file.*;
public class Main { public static void main(String[] given) { try { BODY } catch (Throwable error) { }
    System.out.println("tried"); } }
"""
_RUST = 'use std::io::Write;\nfn main() { let _ = std::io::stdout().flush(); BODY println!("tried"); }'
_GO = 'package main\nimport (\n"fmt"\nUSED\n)\nfunc main() { BODY\nfmt.Println("tried") }'
_CSHARP = r"""
using System;
class Attack { static void Main() { try { BODY } catch (Exception) { } Console.WriteLine("tried"); } }
"""
_SCALA = (
    "object Attack { def main(given: Array[String]): Unit = { try { BODY } catch { case _: Throwable => }; "
    'println("tried") } }'
)
_D = (
    "import std.file, std.process, std.socket, std.stdio;\n"
    'void main() { try { BODY } catch (Throwable) {} writeln("tried"); }'
)
_NODE = 'const fs = require("fs");\ntry { BODY } catch (error) { }\nsetTimeout(() => console.log("tried"), 200);'
_RACKET = '#lang racket\n(with-handlers ([void void]) BODY)\n(displayln "tried")'
_HASKELL = (
    "import Control.Exception\nimport System.IO\n"
    "attempt :: IO () -> IO ()\nattempt act = act `catch` (\\error -> let _ = error :: SomeException in return ())\n"
    'main :: IO ()\nmain = attempt (BODY) >> putStrLn "tried"\n'
)


def _in(frame: str, body: str, used: str = "") -> str:
    return frame.replace("USED", used).replace("BODY", body)


_PROGRAMS: dict[str, dict[str, dict[str, str]]] = {  # language -> what it wants -> how -> program
    "C": {
        READS: {
            "open": _in(_C, 'read(open("@SECRET@", 0), text, 100); puts(text);'),
            "openat from the root": _in(
                _C, 'read(openat(open("/", O_PATH), "." "@SECRET@", 0), text, 100); puts(text);'
            ),
            "io_uring": _in(_C, 'printf("%ld\\n", syscall(425, 1, text));'),
            "include": '#include "@SECRET@"\nint main(void) { return 0; }',
            "include of the next": '#include_next "@SECRET@"\nint main(void) { return 0; }',
            "incbin": 'int puts(const char *);\n__asm__(".globl secret\\nsecret: .incbin \\"@SECRET@\\"\\n.byte 0");\n'
            "extern char secret[];\nint main(void) { puts(secret); }",
            "an archive for the linker": '__asm__(".include \\"@SECRET@\\"");\nint main(void) { return 0; }',
        },
        WRITES: {
            "creat": _in(_C, 'creat("@PATH@", 0600);'),
            "symlink": _in(_C, 'symlink("/etc/passwd", "@PATH@");'),
            "mkdir": _in(_C, 'mkdir("@PATH@", 0700);'),
            "rename": _in(_C, 'creat("a", 0600); rename("a", "@PATH@");'),
            "output of a compiler": _in(
                _C, 'execlp("gcc", "gcc", "-E", "-x", "c", "/dev/null", "-o", "@PATH@", NULL);'
            ),
            "dependencies": '#pragma GCC dependency "@SECRET@"\n#pragma GCC pch_preprocess "@SECRET@"\nint main(){}',
        },
        CONNECTS: {"socket": _in(_C, _SOCKET)},
        STARTS: {
            "fork": _in(_C, 'if (fork() == 0) { setsid(); execlp("sleep", "sleep", "31415", NULL); _exit(1); }'),
            "vfork": _in(_C, 'if (vfork() == 0) { execlp("sleep", "sleep", "31415", NULL); _exit(1); }'),
            "system": _in(_C, 'system("setsid sleep 31415 &");'),
        },
    },
    "C++": {
        READS: {
            "fstream": "#include <fstream>\n#include <iostream>\nint main() { std::ifstream "
            'in("@SECRET@"); std::string s;'
            ' in >> s; std::cout << s << "tried"; }',
            "include in a raw string": 'const char *a =\n#include "@SECRET@"\n;\nint main() {}',
            "embed by has_include": '#if __has_include("@SECRET@")\n#error secret found: "@SECRET@"\n#endif\n'
            '#include "@SECRET@"\nint main() {}',
        },
        WRITES: {
            "ofstream": '#include <fstream>\n#include <cstdio>\nint main() { std::ofstream("@PATH@") << '
            '1; puts("tried"); }',
            "filesystem": "#include <filesystem>\n#include <cstdio>\nint main() { std::error_code e;"
            ' std::filesystem::create_directory("@PATH@", e); puts("tried"); }',
        },
    },
    "Java": {
        READS: {"files": _in(_JAVA, 'System.out.println(Files.readString(Path.of("@SECRET@")));')},
        WRITES: {"files": _in(_JAVA, 'Files.writeString(Path.of("@PATH@"), "x");')},
        CONNECTS: {"socket": _in(_JAVA, 'new Socket("127.0.0.1", @PORT@);')},
        STARTS: {"processes": _in(_JAVA, 'new ProcessBuilder("setsid", "sleep", "31415").start();')},
    },
    "JavaScript": {
        READS: {"fs": _in(_NODE, 'console.log(fs.readFileSync("@SECRET@", "utf8"));')},
        WRITES: {"fs": _in(_NODE, 'fs.writeFileSync("@PATH@", "x");')},
        CONNECTS: {
            "net": _in(_NODE, 'require("net").connect(@PORT@, "127.0.0.1").on("error", () => {});'),
            "fetch": _in(_NODE, 'fetch("http://127.0.0.1:@PORT@/").catch(() => {});'),
        },
        STARTS: {
            "child process": _in(
                _NODE,
                'require("child_process").spawn("sleep", ["31415"], { detached: true, stdio: "ignore" })'
                '.on("error", () => {}).unref();',
            )
        },
    },
    "TypeScript": {
        READS: {
            "reference": '/// <reference path="@SECRET@" />\nconsole.log("tried");',
            "import": 'import * as secret from "@SECRET@";\nconsole.log(secret, "tried");',
        },
        WRITES: {
            "fs": "declare function require(name: string): any;\n"
            'try { require("fs").writeFileSync("@PATH@", "x"); } catch (error) { }\nconsole.log("tried");'
        },
    },
    "Go": {
        READS: {
            "os": _in(_GO, 'text, _ := os.ReadFile("@SECRET@"); fmt.Println(string(text))', '"os"'),
            "embed": 'package main\nimport _ "embed"\n//go:embed @SECRET@\nvar secret string\nfunc '
            "main() { println(secret) }",
        },
        WRITES: {"os": _in(_GO, 'os.WriteFile("@PATH@", []byte("x"), 0o600)', '"os"')},
        STARTS: {"os": _in(_GO, 'os.StartProcess("/bin/sleep", []string{"sleep", "31415"}, &os.ProcAttr{})', '"os"')},
        "no net": {"package net": _in(_GO, 'net.Dial("tcp", "127.0.0.1:@PORT@")', '"net"')},
    },
    "Rust": {
        READS: {
            "fs": _in(_RUST, 'println!("{:?}", std::fs::read_to_string("@SECRET@"));'),
            "include_str": 'fn main() { println!("{}", include_str!("@SECRET@")); }',
            "include": 'fn main() { include!("@SECRET@"); }',
            "path of a module": '#[path = "@SECRET@"] mod secret;\nfn main() {}',
        },
        WRITES: {"fs": _in(_RUST, 'let _ = std::fs::write("@PATH@", "x");')},
        CONNECTS: {"net": _in(_RUST, 'let _ = std::net::TcpStream::connect(("127.0.0.1", @PORT@));')},
        STARTS: {"process": _in(_RUST, 'let _ = std::process::Command::new("sleep").arg("31415").spawn();')},
    },
    "C#": {
        READS: {"files": _in(_CSHARP, 'Console.WriteLine(System.IO.File.ReadAllText("@SECRET@"));')},
        WRITES: {"files": _in(_CSHARP, 'System.IO.File.WriteAllText("@PATH@", "x");')},
        CONNECTS: {"socket": _in(_CSHARP, 'new System.Net.Sockets.TcpClient("127.0.0.1", @PORT@);')},
        STARTS: {"process": _in(_CSHARP, 'System.Diagnostics.Process.Start("/bin/sleep", "31415");')},
    },
    "PHP": {
        READS: {"files": '<?php echo @file_get_contents("@SECRET@"), "tried";'},
        WRITES: {"files": '<?php @file_put_contents("@PATH@", "x"); echo "tried";'},
        CONNECTS: {"socket": '<?php @fsockopen("127.0.0.1", @PORT@); echo "tried";'},
        STARTS: {
            "exec": '<?php @exec("sleep 31415 > /dev/null 2>&1 &"); @proc_open("sleep 31415", [], $p); echo "tried";'
        },
    },
    "Bash": {
        READS: {
            "cat": "cat @SECRET@; echo $(< @SECRET@); mapfile -t a < @SECRET@; echo ${a[0]} tried",
            "source": ". @SECRET@; echo tried",
        },
        WRITES: {"redirection": "echo x > @PATH@; touch @PATH@; cp /bin/true @PATH@; mkdir @PATH@; echo tried"},
        CONNECTS: {"dev tcp": "exec 3<> /dev/tcp/127.0.0.1/@PORT@; echo tried"},
        STARTS: {
            "background": "sleep 31415 & disown; setsid nohup sleep 31415 & echo tried",
            "double fork": "( ( trap '' HUP INT TERM; setsid sleep 31415 & ) & ) & sleep 0.2; echo tried",
            "unshare": "unshare -Urpf sleep 31415 & sleep 0.1; echo tried",
        },
    },
    "Perl": {
        READS: {"open": 'open(my $in, "<", "@SECRET@") and print <$in>; print "tried";'},
        WRITES: {
            "open": 'open(my $out, ">", "@PATH@"); print "tried";',
            "syscall": 'my $p = "@PATH@"; syscall(83, $p, 0700); print "tried";',
        },
        CONNECTS: {
            "socket": "use Socket; socket(my $s, PF_INET, SOCK_STREAM, 0) and connect($s, sockaddr_in(@PORT@, "
            'inet_aton("127.0.0.1"))); print "tried";'
        },
        STARTS: {"fork": 'if (defined(my $p = fork)) { exec "sleep", "31415" unless $p } print "tried";'},
    },
    "Ruby": {
        READS: {"file": 'puts File.read("@SECRET@") rescue 0; puts "tried"'},
        WRITES: {"file": 'File.write("@PATH@", "x") rescue 0; puts "tried"'},
        CONNECTS: {"socket": 'require "socket"; TCPSocket.new("127.0.0.1", @PORT@) rescue 0; puts "tried"'},
        STARTS: {"spawn": 'spawn("sleep 31415") rescue 0; (fork { exec "sleep", "31415" }) rescue 0; puts "tried"'},
    },
    "Lua": {
        READS: {"io": 'local f = io.open("@SECRET@"); if f then print(f:read("a")) end; print("tried")'},
        WRITES: {"io": 'io.open("@PATH@", "w"); os.rename("main.lua", "@PATH@"); print("tried")'},
        STARTS: {"os": 'os.execute("sleep 31415 &"); pcall(io.popen, "sleep 31415"); print("tried")'},
    },
    "R": {
        READS: {"lines": 'try(print(readLines("@SECRET@")), silent = TRUE); cat("tried")'},
        WRITES: {"lines": 'try(writeLines("x", "@PATH@"), silent = TRUE); dir.create("@PATH@"); cat("tried")'},
        CONNECTS: {"socket": 'try(socketConnection("127.0.0.1", @PORT@, timeout = 1), silent = TRUE); cat("tried")'},
        STARTS: {"system": 'try(system("sleep 31415 &"), silent = TRUE); cat("tried")'},
    },
    "Scala": {
        READS: {"source": _in(_SCALA, 'println(scala.io.Source.fromFile("@SECRET@").mkString)')},
        WRITES: {"files": _in(_SCALA, 'java.nio.file.Files.createFile(java.nio.file.Paths.get("@PATH@"))')},
    },
    "D": {
        READS: {
            "file": _in(_D, 'writeln(readText("@SECRET@"));'),
            "import of text": 'import std.stdio;\nvoid main() { writeln(import("@SECRET@")); }',
        },
        WRITES: {"file": _in(_D, 'std.file.write("@PATH@", "x");')},
        CONNECTS: {"socket": _in(_D, 'new TcpSocket(new InternetAddress("127.0.0.1", @PORT@));')},
        STARTS: {"process": _in(_D, 'spawnProcess(["sleep", "31415"]);')},
    },
    "Racket": {
        READS: {
            "file": _in(_RACKET, '(displayln (file->string "@SECRET@"))'),
            "at compile time": "#lang racket\n(require (for-syntax racket))\n(define-syntax (secret stx) "
            "(datum->syntax stx "
            '(file->string "@SECRET@")))\n(displayln (secret))',
        },
        WRITES: {"file": _in(_RACKET, '(display-to-file "x" "@PATH@")')},
        CONNECTS: {"tcp": _in(_RACKET, '(tcp-connect "127.0.0.1" @PORT@)')},
        STARTS: {"process": _in(_RACKET, '(process "sleep 31415")')},
    },
    "Haskell": {
        READS: {
            "file": _in(_HASKELL, 'readFile "@SECRET@" >>= putStrLn'),
            "at compile time": "{-# LANGUAGE TemplateHaskell #-}\nimport Language.Haskell.TH\n"
            'main :: IO ()\nmain = putStrLn $(runIO (readFile "@SECRET@") >>= litE . stringL)\n',
            "preprocessor": '{-# LANGUAGE CPP #-}\n#include "@SECRET@"\nmain = return ()\n',
        },
        WRITES: {
            "file": _in(_HASKELL, 'writeFile "@PATH@" "x"'),
            "preprocessor of its own": "{-# OPTIONS_GHC -F -pgmF touch -optF @PATH@ #-}\nmain = return ()\n",
        },
    },
    "OCaml": {
        READS: {
            "file": 'let () = (try print_endline (input_line (open_in "@SECRET@")) with _ -> ()); print_endline "tried"'
        },
        STARTS: {"system": 'let () = ignore (Sys.command "sleep 31415 &"); print_endline "tried"'},
    },
    "AWK": {
        READS: {"getline": 'BEGIN { while ((getline line < "@SECRET@") > 0) print line; print "tried" }'},
        WRITES: {"print": 'BEGIN { print "x" > "@PATH@"; print "tried" }'},
        STARTS: {"system": 'BEGIN { system("sleep 31415 &"); print "tried" }'},
    },
    "Nim": {
        READS: {
            "at compile time": 'const secret = staticRead("@SECRET@")\necho secret',
            "by a command of the compiler": 'const secret = staticExec("cat @SECRET@")\necho secret',
        },
        WRITES: {
            "by a command of the compiler": 'const made = staticExec("touch @PATH@; sleep 31415 &")\necho "tried"'
        },
    },
    "Tcl": {
        READS: {"open": "catch {puts [read [open @SECRET@]]}; puts tried"},
        WRITES: {"open": "catch {open @PATH@ w}; puts tried"},
        CONNECTS: {"socket": "catch {socket 127.0.0.1 @PORT@}; puts tried"},
        STARTS: {"exec": "catch {exec sleep 31415 &}; puts tried"},
    },
    "Prolog": {
        READS: {
            "file": 'main :- catch((read_file_to_string("@SECRET@", S, []), write(S)), _, true), write(tried).',
            "at compile time": ':- catch((open("@SECRET@", read, S), read_string(S, _, T), write(T)), _, true).\n'
            "main :- write(tried).",
        },
    },
    "Common Lisp": {
        READS: {
            "open": '(ignore-errors (with-open-file (in "@SECRET@") (print (read-line in)))) (princ "tried")',
            "while it's read": '#.(ignore-errors (with-open-file (in "@SECRET@") (print (read-line '
            'in))))\n(princ "tried")',
        },
        STARTS: {"program": '(ignore-errors (sb-ext:run-program "/bin/sleep" \'("31415") :wait nil)) (princ "tried")'},
    },
    "Emacs Lisp": {
        READS: {
            "file": '(ignore-errors (with-temp-buffer (insert-file-contents "@SECRET@") (princ (buffer-string))))'
            '(princ "tried")'
        },
        STARTS: {"process": '(ignore-errors (call-process "sleep" nil 0 nil "31415")) (princ "tried")'},
    },
    "Vim script": {
        WRITES: {"file": "silent! call writefile(['x'], '@PATH@')\ncall writefile(['tried'], '/dev/stdout')"},
        STARTS: {"shell": "silent! call system('sleep 31415 &')\ncall writefile(['tried'], '/dev/stdout')"},
    },
    "Elixir": {
        READS: {"file": 'IO.inspect(File.read("@SECRET@")); IO.puts("tried")'},
        WRITES: {"file": 'File.write("@PATH@", "x"); IO.puts("tried")'},
        CONNECTS: {"tcp": ':gen_tcp.connect({127, 0, 0, 1}, @PORT@, [])\nIO.puts("tried")'},
        STARTS: {"port": 'Port.open({:spawn, "sleep 31415"}, [])\nIO.puts("tried")'},
    },
}

ATTACKS: dict[str, tuple[str, str, str]] = {  # name -> language, what it wants, program
    f"{language} {wants} by {how}": (language, wants, program)
    for language, kinds in _PROGRAMS.items()
    for wants, programs in kinds.items()
    for how, program in programs.items()
}
