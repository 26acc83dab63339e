package vm

import (
	"context"
	"fmt"
)

// renameRunning asks the supervisor of a machine to give it another name.
func (s *Store) renameRunning(_ context.Context, rec *Record, _ string) error {
	return fmt.Errorf("machine %s: %w", rec.Config.Name, ErrRunning)
}
