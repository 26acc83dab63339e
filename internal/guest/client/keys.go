package client

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// Keys are two key pairs that are made for one machine. The machine proves its
// identity with one of them, and the host with the other.
type Keys struct {
	HostPrivate   string // OpenSSH PEM, for guest.Config.HostKey
	HostPublic    string // a line of authorized_keys, with a newline
	ClientPrivate string // OpenSSH PEM, as ssh(1) reads it
	ClientPublic  string // a line of authorized_keys, for guest.Config.ClientKeys
}

// NewKeys generates new keys.
func NewKeys() (Keys, error) {
	var k Keys
	var err error
	if k.HostPrivate, k.HostPublic, err = newPair("banger machine"); err != nil {
		return Keys{}, err
	}
	if k.ClientPrivate, k.ClientPublic, err = newPair("banger"); err != nil {
		return Keys{}, err
	}
	return k, nil
}

func newPair(comment string) (private, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("make key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, comment)
	if err != nil {
		return "", "", fmt.Errorf("make key: %w", err)
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", fmt.Errorf("make key: %w", err)
	}
	return string(pem.EncodeToMemory(block)), string(ssh.MarshalAuthorizedKey(line)), nil
}
