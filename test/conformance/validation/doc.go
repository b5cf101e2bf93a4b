// Package validation runs the validation programs of OCI's runtime-tools on
// kiste-runtime, and, with -peers, on runc and crun.
//
//	takes    the module of ../suite, which the Go client fetches; its programs print TAP
//	gives    a test for each program and runtime, and the table docs/conformance.md
//	touches  containers, cgroups named cgrouptest and testdir
//	state    test/cache keeps the programs
//
// A program passes when it ends with code 0, prints no "not ok", and no error
// in its diagnostics: several print those instead. A program that fails with
// kiste-runtime needs a row in known that says why.
//
//	go test ./test/conformance/validation -peers          all runtimes
//	go test ./test/conformance/validation -peers -update  and rewrite docs/conformance.md
package validation
