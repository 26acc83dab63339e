package pull

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/banger-vm/banger/internal/base/digest"
)

// manifest fetches a manifest or index by tag or digest.
func (r *registry) manifest(ctx context.Context, identifier string) (data []byte, mediaType string, err error) {
	q := request{"manifests", identifier, http.Header{"Accept": {acceptManifests}}, []int{http.StatusOK}}
	err = r.document(ctx, q, "manifest "+identifier, func(resp *http.Response) error {
		if data, err = readAll(resp.Body, r.maxJSON); int64(len(data)) > r.maxJSON {
			return &LimitError{"document is too large", r.maxJSON, "limits.json"}
		}
		if err != nil {
			return fmt.Errorf("read manifest: %w", err)
		}
		mediaType = resp.Header.Get("Content-Type")
		return checkManifest(data, mediaType, identifier)
	})
	return data, mediaType, err
}

// checkManifest returns an error if data is no manifest or index, or has not the
// digest that identifier is. The error is a *contentError if another request may
// bring other content.
func checkManifest(data []byte, mediaType, identifier string) error {
	if want, err := digest.ParseDigest(identifier); err == nil {
		if got := digest.FromBytes(data); got != want {
			return &contentError{fmt.Errorf("manifest %s: %w", want, &mismatchError{got})}
		}
		return nil
	}
	_, err := parseDocument(data, mediaType)
	if err != nil && !json.Valid(data) {
		return &contentError{err}
	}
	return err
}

// blobBytes fetches all of a blob that is a document.
func (r *registry) blobBytes(ctx context.Context, b blob) (data []byte, err error) {
	if b.size > r.maxJSON {
		return nil, tooLarge("document "+string(b.digest), b.size, r.maxJSON)
	}
	q := request{"blobs", string(b.digest), nil, []int{http.StatusOK}}
	err = r.document(ctx, q, string(b.digest), func(resp *http.Response) error {
		if resp.ContentLength >= 0 && resp.ContentLength != b.size {
			return &contentError{fmt.Errorf("server sends %d bytes, want %d", resp.ContentLength, b.size)}
		}
		if data, err = readAll(resp.Body, b.size); int64(len(data)) > b.size {
			return &contentError{fmt.Errorf("server sends more than %d bytes", b.size)}
		}
		if err != nil {
			return err
		}
		if err := verifyBytes(data, b); err != nil {
			return &contentError{err}
		}
		return nil
	})
	return data, err
}

// document fetches an object that read reads to its end. It tries again after
// errors that may be temporary.
func (r *registry) document(ctx context.Context, q request, task string, read func(*http.Response) error) error {
	retry := r.retrier()
	for {
		err := r.get(ctx, q, func(e *endpoint, resp *http.Response) error {
			if err := read(resp); err != nil {
				return e.named(err)
			}
			return resp.Body.Close()
		})
		if err == nil {
			return nil
		}
		if err := retry.wait(ctx, task, err); err != nil {
			return err
		}
	}
}

// verifyBytes returns an error if a document does not have the size and the
// digest of its descriptor.
func verifyBytes(data []byte, b blob) error {
	if int64(len(data)) != b.size {
		return fmt.Errorf("document %s has %d bytes, want %d", b.digest, len(data), b.size)
	}
	if got := digest.FromBytes(data); got != b.digest {
		return fmt.Errorf("document %s has the digest %s", b.digest, got)
	}
	return nil
}
