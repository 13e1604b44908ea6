variable "name" {
  description = "Name of the VPC, and what the names of its parts begin with."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,39}$", var.name))
    error_message = "name has 2 to 40 small letters, digits and hyphens, and begins with a letter."
  }
}

variable "cidr" {
  description = "Addresses of the VPC, a /16. Each pod takes one."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.cidr)) && endswith(var.cidr, "/16")
    error_message = "cidr is a /16 of IPv4."
  }
}

variable "zones" {
  description = "Availability zones. A cluster needs two; GPUs on spot are found more often in three."
  type        = list(string)

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 6 && length(distinct(var.zones)) == length(var.zones)
    error_message = "zones are 2 to 6 different zones."
  }

  validation {
    condition     = alltrue([for zone in var.zones : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", zone))])
    error_message = "zones are names of zones, as in eu-central-1a."
  }
}

variable "nat_per_zone" {
  description = "A NAT gateway in each zone: dearer, but a lost zone takes no other with it, and no traffic crosses zones to leave."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "Services that are reached without the NAT gateway, as in bedrock-runtime. Each costs by the hour and zone."
  type        = list(string)
  default     = ["sts", "ecr.api", "ecr.dkr"]

  validation {
    condition     = alltrue([for service in var.interface_endpoints : can(regex("^[a-z][a-z0-9.-]+$", service))]) && !contains(var.interface_endpoints, "s3")
    error_message = "interface_endpoints are ends of service names; S3 has a gateway, which costs nothing."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the flow logs. It is one with logs = true (module key)."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not its alias."
  }
}

variable "log_days" {
  description = "Days for which flow logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_days)
    error_message = "log_days is a retention that CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
}

variable "account_id" {
  description = "AWS account that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "account_id has 12 digits."
  }
}

variable "region" {
  description = "AWS region that everything is in."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is a region's name, as in eu-central-1."
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
