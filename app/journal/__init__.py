"""What was predicted and what came true: Parquet in the workspace, the single truth of what happened."""
