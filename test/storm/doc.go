// Package storm does random things with containers while it kills random
// processes of Kiste, and then looks whether anything is left or wrong.
//
//	takes    $KISTE_STORM: how long, a duration; $KISTE_CROWD: as many as are promised
//	gives    tests
//	touches  a store of its own
//	state    none
package storm
