// Calls a Service as programs in Go do, again and again: `goclient http|tcp|udp|udp-unconnected ADDRESS:PORT TIMES`. Prints
// a line an answer; whoever answers, or says that it is the peer, must have the address that was called.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	patience = 5 * time.Second
	request  = "GET / HTTP/1.1\r\nHost: serve\r\nConnection: close\r\n\r\n"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("%s http|tcp|udp|udp-unconnected ADDRESS:PORT TIMES", os.Args[0]))
	}
	ways := map[string]func(string) (string, error){
		"http": overHTTP, "tcp": overTCP, "udp": connected, "udp-unconnected": unconnected,
	}
	call, known := ways[os.Args[1]]
	times, err := strconv.Atoi(os.Args[3])
	if !known || err != nil {
		fail(fmt.Errorf("%q: no such way, or no number", os.Args[1:]))
	}
	for range make([]struct{}, times) {
		answer, err := call(os.Args[2])
		if err != nil {
			fail(err)
		}
		fmt.Println(strings.Join(strings.Fields(answer), " "))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func overHTTP(target string) (string, error) {
	var peer net.Addr
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { peer = got.Conn.RemoteAddr() }}
	asked, err := http.NewRequest("GET", "http://"+target+"/", nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(asked.WithContext(httptrace.WithClientTrace(asked.Context(), trace)))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	return string(body), same(peer, target)
}

func overTCP(target string) (string, error) {
	connection, err := dial("tcp", target)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if _, err := connection.Write([]byte(request)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(connection)
	return string(answer), err
}

func connected(target string) (string, error) {
	connection, err := dial("udp", target)
	if err != nil {
		return "", err
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("who")); err != nil {
		return "", err
	}
	answer := make([]byte, 2048)
	length, err := connection.Read(answer)
	return string(answer[:length]), err
}

func dial(network, target string) (net.Conn, error) {
	connection, err := net.DialTimeout(network, target, patience)
	if err != nil {
		return nil, err
	}
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return connection, same(connection.RemoteAddr(), target)
}

// Go makes such a socket of IPv6, and calls IPv4 by mapped addresses.
func unconnected(target string) (string, error) {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return "", err
	}
	socket, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return "", err
	}
	defer socket.Close()
	if err := socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := socket.WriteTo([]byte("who"), to); err != nil {
		return "", err
	}
	answer := make([]byte, 2048)
	length, from, err := socket.ReadFrom(answer)
	if err != nil {
		return "", err
	}
	return string(answer[:length]), same(from, target)
}

func same(peer net.Addr, target string) error {
	if peer == nil || peer.String() != target {
		return fmt.Errorf("called %s, and the peer is %v", target, peer)
	}
	return nil
}
