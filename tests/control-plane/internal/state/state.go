// Package state owns the folder in which a control plane keeps its data: who
// may use it, what happens to those that dead runs left behind, and the ports.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	// prefix marks temporary folders that a later run may sweep once their
	// owner is dead.
	prefix = "ensign-control-plane-"
	// unfinished marks a temporary folder whose lock is not held yet.
	unfinished = "ensign-starting-"
	lockFile   = "lock"
)

// Dir is a state folder, held by this process alone until Close.
type Dir struct {
	// Path is absolute.
	Path      string
	temporary bool
	lock      *os.File
}

// Temporary makes a fresh folder below parent, which Close removes. It first
// removes the folders of earlier runs that ended without doing so.
func Temporary(parent string) (*Dir, error) {
	if err := sweep(parent); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(parent, unfinished)
	if err != nil {
		return nil, fmt.Errorf("create a temporary state folder: %w", err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	// The folder gets the name that sweep looks for only now that its lock is
	// held: otherwise a run that starts at the same time might remove it.
	final := filepath.Join(parent, prefix+strings.TrimPrefix(filepath.Base(path), unfinished))
	if err := os.Rename(path, final); err != nil {
		lock.Close()
		return nil, fmt.Errorf("name the temporary state folder %s: %w", final, err)
	}
	return &Dir{Path: final, temporary: true, lock: lock}, nil
}

// Open takes a folder that outlives the run, and makes it where it is missing.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("resolve the state folder %s: %w", path, err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create the state folder: %w", err)
	}
	// Whoever may enter can open etcd's socket, and so read every Secret.
	if err := os.Chmod(path, 0o700); err != nil {
		return nil, fmt.Errorf("close the state folder to others: %w", err)
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	return &Dir{Path: path, lock: lock}, nil
}

// File is the absolute path of a file in the folder.
func (d *Dir) File(name string) string { return filepath.Join(d.Path, name) }

// Close gives the folder up, and removes it if it is temporary.
func (d *Dir) Close() error {
	var err error
	if d.temporary {
		err = os.RemoveAll(d.Path)
	}
	return errors.Join(err, d.lock.Close())
}

// Abandon gives the folder up but leaves its files to be read.
func (d *Dir) Abandon() error {
	d.temporary = false
	return d.Close()
}

// acquire locks the folder for as long as this process lives. The kernel drops
// the lock with the process, however it ends.
func acquire(path string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the state folder %s is used by another control plane: stop that one, or choose another folder", path)
		}
		return nil, fmt.Errorf("lock the state folder %s: %w", path, err)
	}
	return lock, nil
}

// sweep removes temporary folders below parent whose owner is dead.
func sweep(parent string) error {
	found, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return fmt.Errorf("look for folders of dead runs: %w", err)
	}
	for _, path := range found {
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || !ownedByUs(info) {
			continue
		}
		lock, err := acquire(path)
		if err != nil {
			continue // alive
		}
		// Best effort: what can't be removed now is tried again next time.
		_ = os.RemoveAll(path)
		lock.Close()
	}
	return nil
}

func ownedByUs(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid()
}
