"""What a real run of verl's, in any trainer mode, writes down about itself."""
