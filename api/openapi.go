package api

import (
	_ "embed"
	"slices"
)

//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the description of the protocol, an OpenAPI 3.1 document in
// JSON.
func OpenAPI() []byte { return slices.Clone(openAPI) }
