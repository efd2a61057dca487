"""What is done about what the monitor sees, and why: policy, ledger, retraining, rollout."""
