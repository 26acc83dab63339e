// Package e2e tests banger from outside: the real binary, a real registry with real images, and oracles that
// share no code with it (umoci's tree, the kernel's view of a mounted disk, e2fsck).
//
// The end-to-end tests have the build tag e2e, because they need root, loop devices, packages and minutes.
// `make test` runs them, and `go test ./...` does not. If a tool or root is missing, they are skipped, or fail
// if CI=true. Tests of the source (imports, shape) have no tag. The images are those of scripts/demo-images:
// the variable BANGER_TEST_IMAGES has their folder, or the tests run the script.
package e2e
