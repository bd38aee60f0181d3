"""What an exported model or engine says about itself."""
