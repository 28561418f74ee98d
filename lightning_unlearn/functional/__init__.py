"""Mathematics shared by stages and metrics; imports torch and nothing of ours."""
