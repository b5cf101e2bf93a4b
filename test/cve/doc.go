// Package cve tries the known ways out of a container on kiste-runtime.
//
//	takes    kiste-runtime and the attacker, built from this repository
//	gives    failures, where an attacker got what he should not have; docs/security.md says
//	         which test provokes which known flaw
//	touches  containers of root, of root in a user namespace, of an ordinary user
//	state    none
//
// What a hostile image does is in the program attacker. Races are tried some thousand
// times, with -short a tenth as often.
// KISTE_RUNTIME=/usr/sbin/runc go test ./test/cve tries the same on another
// runtime, which shows that the tests see what they look for; where that one fails
// the host may be harmed: its core_pattern, for one.
package cve
