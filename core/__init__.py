"""What two or more services share: pure rules used twice, or the one adapter to one external system."""
