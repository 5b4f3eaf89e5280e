package quantd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/quantd/quantd/clients/go"
	"github.com/quantd/quantd/clients/go/internal/servertest"
)

const token = "quantd_not_a_secret"

func TestWhatDialRefuses(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.pem")
	notPEM := filepath.Join(t.TempDir(), "text.pem")
	if err := os.WriteFile(notPEM, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(options ...quantd.Option) []quantd.Option { return options }
	for _, test := range []struct {
		address string
		options []quantd.Option
		says    string
	}{
		{"", nil, "it is empty"},
		{"http://quantd:50051", nil, "is a URL"},
		{"10.0.0.7:50051", with(quantd.WithToken(token)), "in clear"},
		{"localhost.example.org:50051", with(quantd.WithToken(token)), "in clear"},
		{"127.0.0.1.example.org:50051", with(quantd.WithToken(token)), "in clear"},
		{"localhost", with(quantd.WithToken(token)), "in clear"}, // nothing is known of the port
		{"localhost:1", with(quantd.WithToken("")), "the token is empty"},
		{"localhost:1", with(quantd.WithRootCAs(missing)), "none.pem"},
		{"localhost:1", with(quantd.WithRootCAs(notPEM)), "holds no certificate"},
		{"localhost:1", with(quantd.WithClientCertificate(missing, missing)), "none.pem"},
		{"localhost:1", with(quantd.WithReconnect(quantd.Reconnect{})), "have to be above 0"},
	} {
		client, err := quantd.Dial(test.address, test.options...)
		if err == nil {
			client.Close()
			t.Errorf("%q is accepted", test.address)
		} else if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), token) {
			t.Errorf("%q: got %q, expected %q", test.address, err, test.says)
		}
	}
}

func TestWhereATokenMayGo(t *testing.T) {
	for _, address := range []string{
		"localhost:50051", "127.0.0.1:50051", "[::1]:50051", "unix:/run/quantd", "unix-abstract:quantd",
	} {
		dial(t, address, quantd.WithToken(token))
	}
	dial(t, "10.0.0.7:50051", quantd.WithToken(token), quantd.WithTLS(nil))
	client := dial(t, "10.0.0.7:50051", quantd.WithToken(token), quantd.WithTokenInClear())
	if text := fmt.Sprintf("%v %+v %#v", client, *client, client.Jobs); strings.Contains(text, token) {
		t.Error("a client that is printed shows its token")
	}
}

func TestTokens(t *testing.T) {
	tokens := writeFile(t, "tokens.toml", fmt.Sprintf(
		"[[token]]\nname = \"reader\"\nsha256 = \"%x\"\nrole = \"read\"\n", sha256.Sum256([]byte(token))))
	server := servertest.Start(t, "--tokens="+tokens)
	ctx := within(t)
	bearing := dial(t, server.Address, quantd.WithToken(token), quantd.WithMetadata("x-request-id", "me"))
	must(bearing.Capabilities(ctx))(t)
	_, err := bearing.Jobs.Cancel(ctx, "jobs/a", "")
	got := failed(t, err)
	if got.Code != codes.PermissionDenied || got.Reason != "ROLE_TOO_SMALL" || got.RequestID != "me" {
		t.Errorf("got %#v", got)
	}
	nobody := dial(t, server.Address)
	for _, err := range nobody.Jobs.List(ctx, nil) {
		if got := failed(t, err); got.Code != codes.Unauthenticated || got.Reason != "CREDENTIALS_MISSING" {
			t.Errorf("got %#v", got)
		}
	}
	_, err = nobody.Jobs.Watch("jobs/a", 0).Result(ctx)
	if got := failed(t, err); got.Code != codes.Unauthenticated {
		t.Errorf("got %#v", got)
	}
	if err := nobody.WaitUntilServing(ctx); err != nil {
		t.Errorf("health needs no token, but: %v", err)
	}
}

func TestTLS(t *testing.T) {
	own := newAuthority(t)
	serverChain, serverKey := own.issue(t, "server")
	clientChain, clientKey := own.issue(t, "client.example")
	tokens := writeFile(t, "tokens.toml", "[[certificate]]\nname = \"client.example\"\nrole = \"read\"\n")
	server := servertest.StartAt(t, "127.0.0.1:0", "--tls-certificate="+serverChain,
		"--tls-key="+serverKey, "--client-ca="+own.file, "--tokens="+tokens)
	ctx := within(t)
	trusting := quantd.WithRootCAs(own.file)
	showing := quantd.WithClientCertificate(clientChain, clientKey)

	for name, options := range map[string][]quantd.Option{
		"files":                     {trusting, showing},
		"a configuration and files": {trusting, quantd.WithTLS(&tls.Config{MinVersion: tls.VersionTLS13}), showing},
	} {
		if _, err := dial(t, server.Address, options...).Capabilities(ctx); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, options := range map[string][]quantd.Option{
		"without encryption":       {},
		"the system's authorities": {quantd.WithTLS(nil), showing},
		"another authority":        {quantd.WithRootCAs(newAuthority(t).file), showing},
		"without a certificate":    {trusting},
	} {
		_, err := dial(t, server.Address, options...).Capabilities(ctx)
		if got := failed(t, err); got.Code != codes.Unavailable {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// authority signs certificates.
type authority struct {
	file        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	signed := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))(t)
	file := writeFile(t, "ca.pem", pemText("CERTIFICATE", signed))
	return &authority{file, must(x509.ParseCertificate(signed))(t), key}
}

// issue makes a certificate for this host: files of the chain and of the key.
func (a *authority) issue(t *testing.T, name string) (chain, keyFile string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	signed := must(x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key))(t)
	text := must(x509.MarshalPKCS8PrivateKey(key))(t)
	return writeFile(t, "chain.pem", pemText("CERTIFICATE", signed)),
		writeFile(t, "key.pem", pemText("PRIVATE KEY", text))
}

func pemText(kind string, data []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
}

// writeFile writes a file that nobody else can read.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
