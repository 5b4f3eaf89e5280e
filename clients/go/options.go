package quantd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
)

// Option changes how [Dial] connects.
type Option func(*settings) error

// settings are what the options of Dial say together.
type settings struct {
	token        string
	tokenInClear bool
	tls          *tls.Config // nil without TLS
	timeout      time.Duration
	metadata     []string // key, value, key, value
	reconnect    Reconnect
	grpc         []grpc.DialOption
}

func settingsOf(options []Option) (*settings, error) {
	given := &settings{timeout: 30 * time.Second, reconnect: defaultReconnect}
	for _, option := range options {
		if err := option(given); err != nil {
			return nil, err
		}
	}
	return given, nil
}

// WithToken sends "authorization: Bearer TOKEN" with every call. It needs TLS, a local address, or
// [WithTokenInClear].
func WithToken(token string) Option {
	return func(s *settings) error {
		if token == "" {
			return errors.New("WithToken: the token is empty")
		}
		s.token = token
		return nil
	}
}

// WithTokenInClear allows the token to cross a network without encryption.
func WithTokenInClear() Option {
	return func(s *settings) error {
		s.tokenInClear = true
		return nil
	}
}

// WithTLS encrypts the connection. nil means the system's authorities; the options for certificates
// below add to a copy of what is given here, and encrypt by themselves.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) error {
		if config == nil {
			config = &tls.Config{}
		}
		given := config.Clone()
		if s.tls != nil { // certificates came first
			given.RootCAs = orElse(given.RootCAs, s.tls.RootCAs)
			given.Certificates = append(given.Certificates, s.tls.Certificates...)
		}
		s.tls = given
		return nil
	}
}

// WithRootCAs trusts the authorities of a PEM file instead of the system's.
func WithRootCAs(file string) Option {
	return func(s *settings) error {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("WithRootCAs: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return fmt.Errorf("WithRootCAs: %s holds no certificate; give a PEM file", file)
		}
		s.tls = orElse(s.tls, &tls.Config{})
		s.tls.RootCAs = pool
		return nil
	}
}

// WithClientCertificate shows the server a certificate: PEM files of its chain and of its key.
func WithClientCertificate(chainFile, keyFile string) Option {
	return func(s *settings) error {
		pair, err := tls.LoadX509KeyPair(chainFile, keyFile)
		if err != nil {
			return fmt.Errorf("WithClientCertificate: %w", err)
		}
		s.tls = orElse(s.tls, &tls.Config{})
		s.tls.Certificates = append(s.tls.Certificates, pair)
		return nil
	}
}

// WithTimeout limits every call but streams; a context may limit it further. Default 30 s; 0 means
// no limit.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) error {
		s.timeout = timeout
		return nil
	}
}

// WithMetadata sends a key and a value with every call.
func WithMetadata(key, value string) Option {
	return func(s *settings) error {
		s.metadata = append(s.metadata, key, value)
		return nil
	}
}

// WithReconnect says what is done about a lost connection while a job is started or followed.
func WithReconnect(reconnect Reconnect) Option {
	return func(s *settings) error {
		if reconnect.InitialDelay <= 0 || reconnect.MaxDelay < reconnect.InitialDelay {
			return fmt.Errorf("WithReconnect: got pauses from %s to %s; they have to be above 0 and grow",
				reconnect.InitialDelay, reconnect.MaxDelay)
		}
		s.reconnect = reconnect
		return nil
	}
}

// WithDialOptions hands options to gRPC: interceptors, statistics, keepalive.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error {
		s.grpc = append(s.grpc, options...)
		return nil
	}
}

func orElse[T any](given, otherwise *T) *T {
	if given != nil {
		return given
	}
	return otherwise
}
