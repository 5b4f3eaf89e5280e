package servertest

import (
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
)

// Proxy forwards a unix socket to another one, and cuts connections when it is told to.
type Proxy struct {
	// Address is where it listens.
	Address string

	target   string
	listener net.Listener

	mutex       sync.Mutex // guards what follows
	open        []net.Conn
	connections int
	// deaf keeps what the server answers from the client.
	deaf bool
}

// StartProxy forwards to a server until the test ends.
func StartProxy(t testing.TB, server *Server) *Proxy {
	t.Helper()
	folder, err := os.MkdirTemp("", "proxy")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", folder+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &Proxy{
		Address:  "unix:" + folder + "/socket",
		target:   strings.TrimPrefix(server.Address, "unix:"),
		listener: listener,
	}
	go proxy.accept()
	t.Cleanup(func() {
		listener.Close()
		proxy.Cut()
		os.RemoveAll(folder)
	})
	return proxy
}

// Cut ends all connections, as a network that fails does.
func (p *Proxy) Cut() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	for _, each := range p.open {
		each.Close()
	}
	p.open = nil
}

// Connections is how many there were.
func (p *Proxy) Connections() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.connections
}

// SetDeaf decides whether answers of the server are kept from the client.
func (p *Proxy) SetDeaf(deaf bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.deaf = deaf
}

func (p *Proxy) isDeaf() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.deaf
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mutex.Lock()
		p.open = append(p.open, client, server)
		p.connections++
		p.mutex.Unlock()
		go forward(server, client)
		go forward(answers{client, p}, server)
	}
}

// answers are what the client gets to hear.
type answers struct {
	net.Conn
	proxy *Proxy
}

func (a answers) Write(data []byte) (int, error) {
	if a.proxy.isDeaf() {
		return len(data), nil
	}
	return a.Conn.Write(data)
}

func forward(to io.WriteCloser, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
}
