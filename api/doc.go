// Package api has the types of the daemon's protocol and a client for it. The
// protocol is HTTP with JSON on a Unix socket. A request that carries a command's
// input and output upgrades its connection to frames: package internal/base/frames
// defines their format. The daemon serves the protocol's OpenAPI description at
// /v1/openapi.json.
//
// The package does not start a daemon and does not search for one. The caller passes
// the path of the socket.
package api
