"""What operators do with a store as a whole: functions that print nothing."""
