// Package api talks to banger's daemon: the types of its protocol, and a
// client over its Unix socket. The protocol is HTTP with JSON; what carries a
// command's input and output upgrades its connection to frames, as package
// stream has them. The daemon serves its OpenAPI description at
// /v1/openapi.json.
//
// The package needs the standard library alone. It neither starts a daemon
// nor looks for one: where the socket is and how a daemon comes to listen
// there is its caller's business.
package api
