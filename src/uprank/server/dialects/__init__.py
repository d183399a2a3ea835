"""The wire formats that the server speaks, one file each."""
