package pull

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/banger-vm/banger/internal/base/digest"
)

func digestOf(data []byte) digest.Digest {
	sum := sha256.Sum256(data)
	return digest.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

func sumOf(h hash.Hash) digest.Digest {
	return digest.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// verifier passes on exactly the bytes that want names: in place of io.EOF
// it returns an error when they differ.
type verifier struct {
	io.ReadCloser
	want blob
	hash hash.Hash
	n    int64
	err  error
}

func verify(r io.ReadCloser, want blob) io.ReadCloser {
	return &verifier{ReadCloser: r, want: want, hash: sha256.New()}
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.ReadCloser.Read(p)
	if left := v.want.size - v.n; int64(n) > left {
		n, err = int(left), fmt.Errorf("longer than the %d bytes that it should have", v.want.size)
	}
	v.n += int64(n)
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		err = v.end()
	}
	v.err = err
	return n, err
}

func (v *verifier) end() error {
	if v.n != v.want.size {
		return fmt.Errorf("%d bytes, want %d", v.n, v.want.size)
	}
	if got := sumOf(v.hash); got != v.want.digest {
		return &mismatchError{got}
	}
	return io.EOF
}

// mismatchError says that content has another digest than its name.
type mismatchError struct{ got digest.Digest }

func (e *mismatchError) Error() string { return "digest mismatch: content is " + string(e.got) }
