"""One program in every language of the table: it prints the sum of the integers that it reads, over several lines."""

SUMS = {
    "C": r"""
#include <stdio.h>
int main(void) { long sum = 0, next; while (scanf("%ld", &next) == 1) sum += next; printf("%ld\n", sum); return 0; }
""",
    "C++": r"""
#include <bits/stdc++.h>
int main() { long sum = 0; for (long next; std::cin >> next;) sum += next; std::cout << sum << std::endl; }
""",
    "Java": r"""
import java.util.*;
public class Adder {
    public static void main(String[] given) {
        Scanner in = new Scanner(System.in);
        long sum = 0;
        while (in.hasNextLong()) sum += in.nextLong();
        System.out.println(sum);
    }
}
""",
    "JavaScript": r"""
const words = require('fs').readFileSync(0, 'utf8').split(/\s+/).filter(Boolean);
console.log(words.map(Number).reduce((a, b) => a + b, 0));
""",
    "TypeScript": r"""
declare function require(name: string): any;
const words: string[] = require('fs').readFileSync(0, 'utf8').split(/\s+/).filter(Boolean);
console.log(words.map(Number).reduce((a: number, b: number) => a + b, 0));
""",
    "Go": r"""
package main
import ("bufio"; "fmt"; "os")
func main() {
    in := bufio.NewReader(os.Stdin)
    var sum, next int64
    for { if _, err := fmt.Fscan(in, &next); err != nil { break }; sum += next }
    fmt.Println(sum)
}
""",
    "Rust": r"""
use std::io::Read;
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    println!("{}", text.split_whitespace().map(|word| word.parse::<i64>().unwrap()).sum::<i64>());
}
""",
    "C#": r"""
using System;
using System.Linq;
class Adder {
    static void Main() {
        var words = Console.In.ReadToEnd().Split((char[])null, StringSplitOptions.RemoveEmptyEntries);
        Console.WriteLine(words.Select(long.Parse).Sum());
    }
}
""",
    "PHP": r"""<?php
echo array_sum(preg_split('/\s+/', stream_get_contents(STDIN), -1, PREG_SPLIT_NO_EMPTY)), "\n";
""",
    "Bash": r"""
sum=0
while read -r -a words; do for word in "${words[@]}"; do sum=$((sum + word)); done; done
echo "$sum" | cat
""",
    "Perl": r"""
my $sum = 0;
while (my $line = <STDIN>) { $sum += $_ for split ' ', $line; }
print "$sum\n";
""",
    "Ruby": r"""
puts STDIN.read.split.map(&:to_i).sum
""",
    "Lua": r"""
local sum = 0
for word in io.read("a"):gmatch("%S+") do sum = sum + math.tointeger(word) end
print(sum)
""",
    "R": r"""
cat(sum(scan(file("stdin"), quiet = TRUE)), "\n", sep = "")
""",
    "Scala": r"""
object Adder {
  def main(given: Array[String]): Unit = {
    println(scala.io.Source.stdin.mkString.split("\\s+").filter(_.nonEmpty).map(_.toLong).sum)
  }
}
""",
    "Swift": r"""
var sum = 0
while let line = readLine() { for word in line.split(separator: " ") { sum += Int(word)! } }
print(sum)
""",
    "Julia": r"""
println(sum(parse.(Int, split(read(stdin, String)))))
""",
    "D": r"""
import std.stdio, std.algorithm, std.array, std.conv;
void main() { writeln(stdin.byLine.map!(line => line.idup.split.map!(to!long).sum).sum); }
""",
    "Racket": r"""
#lang racket
(displayln (apply + (map string->number (string-split (port->string (current-input-port))))))
""",
    "Haskell": r"""
main :: IO ()
main = interact $ \text -> show (sum (map read (words text) :: [Integer])) ++ "\n"
""",
    "OCaml": r"""
let () =
  let sum = ref 0 in
  (try while true do sum := !sum + Scanf.scanf " %d" (fun number -> number) done with _ -> ());
  print_endline (string_of_int !sum)
""",
    "AWK": r"""
{ for (at = 1; at <= NF; at++) sum += $at }
END { print sum }
""",
    "Fortran": r"""
program adder
  implicit none
  integer(8) :: sum, first, second
  integer :: state
  sum = 0
  do
    read(*, *, iostat=state) first, second
    if (state /= 0) exit
    sum = sum + first + second
  end do
  write(*, '(I0)') sum
end program
""",
    "Pascal": r"""
program adder;
var sum, next: int64;
begin
  sum := 0;
  while not SeekEof do begin read(next); sum := sum + next; end;
  writeln(sum);
end.
""",
    "Scheme": r"""
(define (total sum) (let ((next (read))) (if (eof-object? next) sum (total (+ sum next)))))
(display (total 0))
(newline)
""",
    "Common Lisp": r"""
(format t "~a~%" (loop for next = (read *standard-input* nil) while next sum next))
""",
    "Erlang": r"""#!/usr/bin/env escript
total(Sum) -> case io:fread("", "~d") of {ok, [Next]} -> total(Sum + Next); _ -> Sum end.
main(_) -> io:format("~w~n", [total(0)]).
""",
    "Elixir": r"""
IO.read(:stdio, :all) |> String.split() |> Enum.map(&String.to_integer/1) |> Enum.sum() |> IO.puts()
""",
    "Clojure": r"""
(println (reduce + (map #(Long/parseLong %) (re-seq #"\S+" (slurp *in*)))))
""",
    "Prolog": r"""
main :- read_string(user_input, _, Text), split_string(Text, " \n", " \n", Words),
    foldl([Word, Sum, Next]>>(number_string(Number, Word) -> Next is Sum + Number ; Next = Sum), Words, 0, Total),
    format("~w~n", [Total]).
""",
    "CoffeeScript": r"""
words = require('fs').readFileSync(0, 'utf8').split(/\s+/).filter Boolean
console.log words.map(Number).reduce ((a, b) -> a + b), 0
""",
    "Nim": r"""
import strutils
var sum = 0
for word in stdin.readAll().splitWhitespace(): sum += parseInt(word)
echo sum
""",
    "Tcl": r"""
puts [tcl::mathop::+ {*}[read stdin]]
""",
    "Emacs Lisp": r"""
(let ((sum 0) line)
  (while (setq line (ignore-errors (read-from-minibuffer "")))
    (dolist (word (split-string line)) (setq sum (+ sum (string-to-number word)))))
  (princ (format "%d\n" sum)))
""",
    "Vim script": r"""
let sum = 0
for line in readfile('/dev/stdin')
  for word in split(line)
    let sum += str2nr(word)
  endfor
endfor
call writefile([string(sum)], '/dev/stdout')
""",
    "Groovy": r"""
println System.in.text.split().collect { it as long }.sum()
""",
    "Kotlin": r"""
fun main() { println(generateSequence(::readLine).flatMap { it.split(" ").asSequence() }.map { it.toLong() }.sum()) }
""",
    "Dart": r"""
import 'dart:io';
void main() {
  var sum = 0;
  for (String? line = stdin.readLineSync(); line != null; line = stdin.readLineSync()) {
    for (final word in line.split(' ')) sum += int.parse(word);
  }
  print(sum);
}
""",
    "PowerShell": r"""
$sum = 0
foreach ($line in [Console]::In.ReadToEnd() -split '\s+') { if ($line) { $sum += [long]$line } }
Write-Output $sum
""",
}
