// Package e2e tests banger from outside: the real binary, a real registry with real images, and judges
// that share no code with it (umoci's tree, the kernel's view of a mounted disk, e2fsck).
//
// The end-to-end tests carry the build tag e2e, for they want root, loop devices, packages and minutes;
// `go test ./...` stays a developer's quick loop and `make test` runs them. Where a tool or root is missing
// they skip, but fail under CI=true. What needs none of that (the import arrows, the comparer's own test)
// has no tag. The images come from scripts/demo-images, named by BANGER_TEST_IMAGES or made on the spot.
package e2e
