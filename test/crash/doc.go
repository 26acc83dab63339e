// Package crash kills banger's processes at every step of a machine's life, and looks at what is left of them on
// the host without asking banger.
//
// Its tests carry the build tag e2e and need root. The test binary starts itself again in PID, network and mount
// namespaces of its own, so that every process, interface, table and mount that it sees there is its own doing;
// loop devices, which are the host's, are told by their files. banger is test/crashbanger, which gives each
// machine a real tap and a real loop device, and most machines run in test/stubvmm.
package crash
