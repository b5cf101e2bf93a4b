// Package script runs the txtar scripts of testdata on the real binaries: what
// a person types, what he reads, and the exit code.
//
//	takes    testdata/*.txt
//	gives    a test for each
//	touches  what the scripts do, in directories of their own
//	state    test/cache keeps images between runs
//
// A script is a list of commands, as rsc.io/script describes them ("!" before
// one that must fail, "?" before one that may), with files after it. These are
// ours:
//
//	kiste ARG...                run kiste, with a store of the script's own
//	code N PROGRAM ARG...       run a program, which must end with exit code N
//	need WORD...                powers of package host, or programs
//	mkimage DIR [KEY=VALUE...]  write an OCI layout with a busybox image, tag "test";
//	                            arch=, user=, cmd=, entrypoint=, volume=PATH, damage=layer|short, bomb=SIZE,
//	                            upper=DIR,DIR... for more layers, absolute paths
//	registry                    start a registry on loopback, $REGISTRY is its host and port
//	freeport                    let $PORT be a port of loopback that nobody uses
//	asuser PROGRAM ARG...       run as an ordinary user who has ranges of ids
//	pty PROGRAM ARG...          run under a pseudo terminal
//	kill9 TIME PROGRAM ARG...   run, and kill with signal 9 after TIME
//	diskfull SIZE DIR           mount a file system of SIZE at DIR
//	to FILE PROGRAM ARG...      run, with the output in FILE: for what leaves processes behind
//	ofstore PATTERN             a program: the processes of this store whose command line, with spaces
//	                            between its words, is so
//	runstop SOCKET NAME NETWORK [FIELDS]  a program: as docker run -d --rm --network NETWORK bb and stop -t 0,
//	                            at an engine's socket: its client would cost more than all the rest
//	eventually PROGRAM ARG...   run again until it succeeds, for a minute at most
//	mkbundle DIR [FIELD=JSON...] write an OCI bundle with busybox; "rootless" first: of the ordinary user
//	runtime ARG...              run kiste-runtime, with state of the script's own, $WORK/rt
//	receiver SOCKET FILE        take one descriptor from SOCKET and write what it gives to FILE
//	manager SOCKET FILE         write the notifications that come to SOCKET to FILE, as systemd takes them
//	workingcriu [FEATURE...]    have a criu that works on this kernel, with features as
//	                            "criu check" names them, or skip, loudly
//	build DIR                   build a Go program that tests need, from its directory as seen from
//	                            this one, into the script's
//	daemon FILE PROGRAM ARG...  start a program, its output in FILE, which is ended with the script
//	finally PROGRAM ARG...      run a program when the script has ended, also when it failed; the last one first
//	empty                       remove $GROUP, the parent of engines' cgroups, in which nothing may be left
//	notify SOCKET TEXT          send a notification; semicolons are line feeds
//
// Containers of scripts of the runtime have names that begin with kiste-, so that what
// they leave behind is known as ours.
//
// After each script the host must be as it was: mounts, links, cgroups and
// processes, whoever started these. What one has left after all is
// taken away, which its failure says.
package script
