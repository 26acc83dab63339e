package pull

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/banger-vm/banger/internal/base/digest"
)

// verifier is a reader that checks its content against want. If the size or the
// digest differs, it returns an error in place of io.EOF.
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
		n, err = int(left), fmt.Errorf("more than the expected %d bytes", v.want.size)
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
	if got := digest.FromHash(v.hash); got != v.want.digest {
		return &mismatchError{got}
	}
	return io.EOF
}

// mismatchError reports content whose digest differs from the expected one.
type mismatchError struct{ got digest.Digest }

func (e *mismatchError) Error() string { return "digest mismatch: content has " + string(e.got) }
