// Package crash kills banger's processes at every step of a machine's life, and checks on the host, without banger,
// that nothing is lost and nothing is left behind.
//
// The tests have the build tag e2e and need root. The test binary starts itself again in new PID, network and mount
// namespaces, so the tests cause every process, interface, table and mount that they see there. Loop devices belong to
// the host; the tests recognize theirs by the backing files. The program under test is test/crashbanger, which gives
// each machine a tap and a loop device. Most machines run in test/stubvmm.
package crash
