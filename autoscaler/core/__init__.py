"""The decision: types, signals, strategies, limits, admission and the reconcile plan, all pure."""
