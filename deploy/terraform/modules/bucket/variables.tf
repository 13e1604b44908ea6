variable "name" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string

  # A dot breaks the TLS certificate of the bucket's own host name.
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name has 3 to 63 lower case letters, digits and hyphens, and begins and ends with a letter or digit."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the objects."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "noncurrent_days" {
  description = "Days for which a version that was replaced or deleted is kept. A purged text is gone this long after the purge, and up to two days later."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 30 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days is a whole number from 1 to 30: longer keeps purged texts longer than most promises allow."
  }
}

variable "expire_prefixes" {
  description = "Prefixes whose objects expire, and after how many days: request files of batch inference, which hold texts. Never the state's."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for prefix, days in var.expire_prefixes : can(regex("^[a-z0-9][a-z0-9/_-]*/$", prefix)) && days >= 1 && floor(days) == days])
    error_message = "expire_prefixes maps a prefix that ends with \"/\" to a whole number of days, 1 or more."
  }

  validation {
    condition     = alltrue([for prefix, days in var.expire_prefixes : !startswith(prefix, "state/")])
    error_message = "expire_prefixes must not name the state: an object of it that expires is a damaged table."
  }
}

variable "partition" {
  description = "AWS partition, aws or aws-us-gov: in China services have other names."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov"], var.partition)
    error_message = "partition is aws or aws-us-gov."
  }
}
